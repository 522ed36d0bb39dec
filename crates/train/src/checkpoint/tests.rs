use super::*;
use crate::PretrainSettings;
use crate::objectives::next_token::NextToken;
use crate::settings::{CheckpointSettings, EvaluationSettings, OptimizationSettings, RunSettings};
use crate::step::{StepSettings, step};
use crate::testing::{batch, tiny_model, values};
use cavy_text::{TokenStore, Tokenizer};

fn settings() -> PretrainSettings {
    let checkpoints = CheckpointSettings { keep_last: 2, ..CheckpointSettings::default() };
    PretrainSettings { checkpoints, ..PretrainSettings::default() }
}

fn fingerprint(text: u64) -> DataFingerprint {
    DataFingerprint { train_tokens: 100, val_tokens: 10, tokenizer: 1, text }
}

/// A model and an optimizer after one step.
fn trained() -> (Model, Optimizer) {
    let mut optimizer = Optimizer::new(&settings().optimization);
    let how = StepSettings { lr: 1e-2, max_norm: None, step: 0, seed: 1, recompute: false };
    let (model, _) = step(tiny_model(0.0), &mut optimizer, &NextToken, &[batch(2, 8)], &how);
    (model, optimizer)
}

fn save_at(run_dir: &Path, step: usize, val_loss: Option<f64>) -> Result<PathBuf, TrainError> {
    let (model, optimizer) = trained();
    let progress = Progress { step, updates: 1, val_loss, best: Some((0.1 + 0.2, 3)), ..Progress::default() };
    let snapshot =
        Snapshot { settings: &settings(), data: &fingerprint(7), progress: &progress, optimizer: &optimizer };
    save(run_dir, &snapshot, |folder| {
        model.save(folder)?;
        Ok(Tokenizer::bytes().save(folder.join("tokenizer.json"))?)
    })
}

fn load_at(run_dir: &Path, step: usize) -> Result<Loaded, TrainError> {
    let device = Device::flex().autodiff();
    load(run_dir, step, (&settings(), &fingerprint(7)), &device, |folder| Ok(Model::load(folder, &device)?))
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit_and_goes_on_the_same() {
    let folder = tempfile::tempdir().unwrap();
    save_at(folder.path(), 1, None).unwrap();
    let loaded = load_at(folder.path(), 1).unwrap();
    let (model, mut optimizer) = trained();
    assert_eq!(values(&model), values(&loaded.model));
    assert_eq!(loaded.progress.best, Some((0.1 + 0.2, 3)));
    let how = StepSettings { lr: 1e-2, max_norm: None, step: 1, seed: 1, recompute: false };
    let (straight, _) = step(model, &mut optimizer, &NextToken, &[batch(2, 8)], &how);
    let mut optimizer = loaded.optimizer;
    let (resumed, _) = step(loaded.model, &mut optimizer, &NextToken, &[batch(2, 8)], &how);
    assert_eq!(values(&straight), values(&resumed));
    assert_eq!(optimizer.updates(), 2);
}

#[test]
fn the_last_two_and_the_best_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for (step, val_loss) in [(10, Some(3.0)), (20, Some(2.0)), (30, Some(2.5)), (40, None), (50, Some(2.6))] {
        save_at(folder.path(), step, val_loss).unwrap();
    }
    assert_eq!(list(folder.path()).unwrap(), [20, 40, 50]);
    let names = fs::read_dir(folder.path().join("checkpoints")).unwrap().count();
    assert_eq!(names, 3);
}

#[test]
fn leftovers_of_a_crash_are_no_checkpoints_and_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["step-7.partial", "step-3.old"] {
        let path = folder.path().join("checkpoints").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("model.safetensors"), "half").unwrap();
    }
    assert_eq!(list(folder.path()).unwrap(), [] as [usize; 0]);
    save_at(folder.path(), 8, None).unwrap();
    assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 1);
}

#[test]
fn every_damaged_file_is_named_with_the_way_out() {
    for file in ["model.safetensors", "optimizer.safetensors", "config.json", "tokenizer.json", "state.json"] {
        let folder = tempfile::tempdir().unwrap();
        save_at(folder.path(), 4, None).unwrap();
        let path = save_at(folder.path(), 9, None).unwrap().join(file);
        let bytes = fs::read(&path).unwrap();
        let check = |damage: &str| {
            let error = load_at(folder.path(), 9).unwrap_err().to_string();
            let told = error.contains(file) && error.contains("step-9 and resume") && error.contains("from step 4");
            assert!(told, "{damage} {file}: {error}");
            assert!(load_at(folder.path(), 4).is_ok(), "{damage} {file}");
        };
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        check("truncated");
        fs::remove_file(&path).unwrap();
        check("removed");
        if file != "state.json" {
            let mut flipped = bytes.clone();
            flipped[bytes.len() - 3] ^= 4;
            fs::write(&path, flipped).unwrap();
            check("flipped");
        }
    }
}

#[test]
fn settings_and_text_of_another_run_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    save_at(folder.path(), 1, None).unwrap();
    let of = |settings: &PretrainSettings, text| {
        let read = |folder: &Path| Ok(Model::load(folder, &Device::flex())?);
        load(folder.path(), 1, (settings, &fingerprint(text)), &Device::flex(), read).map(|_| ())
    };
    let faster = PretrainSettings {
        optimization: OptimizationSettings { peak_lr: 0.5, ..OptimizationSettings::default() },
        ..settings()
    };
    let error = of(&faster, 7).unwrap_err().to_string();
    assert!(error.contains("`peak_lr` is 0.5") && error.contains("0.0006"), "{error}");
    let error = of(&settings(), 8).unwrap_err().to_string();
    assert!(error.contains("the text is not the one"), "{error}");
    let elsewhere = PretrainSettings {
        run: RunSettings { out: "elsewhere".into(), ..RunSettings::default() },
        checkpoints: CheckpointSettings { log_every: 3, keep_last: 9, ..CheckpointSettings::default() },
        ..settings()
    };
    assert!(of(&elsewhere, 7).is_ok());
}

#[test]
fn every_free_setting_is_a_setting() {
    let free = PretrainSettings::default().to_table().keys().filter(|key| PretrainSettings::is_free(key)).count();
    let groups = RunSettings::FREE.len() + EvaluationSettings::FREE.len() + CheckpointSettings::FREE.len();
    assert_eq!(free, groups + PretrainSettings::FREE.len());
}

#[test]
fn a_change_inside_the_text_is_noticed_by_its_fingerprint() {
    let data = |middle: u32| {
        let tokens = |shift: u32| (0..50).map(|i| if i == 25 { middle } else { (i + shift) % 200 }).collect();
        let store = |shift| TokenStore::from_tokens(tokens(shift), 257, 50).unwrap();
        crate::data::Data { tokenizer: Tokenizer::bytes(), train: store(0), val: store(1) }
    };
    assert_eq!(data(3).fingerprint(), data(3).fingerprint());
    assert_ne!(data(3).fingerprint(), data(4).fingerprint());
}
