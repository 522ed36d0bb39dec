//! `cavy run`: a recipe, stage by stage.

use crate::error::CliError;
use crate::options::TomlFile;
use crate::verb::{self, Verb};
use crate::{Ending, text};
use cavy_train::settings::{ClassifySettings, DpoSettings, RewardSettings, SftSettings, nearest};
use cavy_train::{PretrainSettings, Settings, SettingsError};
use clap::Args;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Recipes that work without their files.
const BUILT_IN: [(&str, &str); 1] = [("quickstart", include_str!("../../../recipes/quickstart.toml"))];
/// Marks a stage that is finished.
const DONE: &str = "done";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Path of a recipe, or the name of a built-in one: `quickstart`
    recipe: String,
    /// Data instead of the recipe's, for all stages that have the verb of the first
    #[arg(long, value_name = "PATH", num_args = 1..)]
    data: Vec<String>,
    /// Model to start from instead of the recipe's, for all stages that do not take that of another stage
    #[arg(long, value_name = "PATH")]
    model: Option<String>,
    /// Directory for the stages' runs [default: `runs/` and the name of the recipe]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show the decided settings of each stage, and stop
    #[arg(long)]
    dry_run: bool,
}

/// A stage of a recipe, with its settings decided.
#[derive(Debug)]
struct Stage {
    name: String,
    verb: &'static str,
    out: PathBuf,
    settings: Table,
    run: Run,
}

/// Runs a stage with its decided settings; told whether to go on with what an earlier run left.
type Run = fn(&Table, bool) -> Result<Ending, CliError>;
/// Decides the settings of a stage in its directory, and says what runs them.
type Decide = fn(Table, &Path) -> Result<(Table, Run), SettingsError>;

/// The verbs that a stage can have.
const VERBS: [(&str, Decide); 5] = [
    (PretrainSettings::VERB, decide::<PretrainSettings>),
    (SftSettings::VERB, decide::<SftSettings>),
    (ClassifySettings::VERB, decide::<ClassifySettings>),
    (DpoSettings::VERB, decide::<DpoSettings>),
    (RewardSettings::VERB, decide::<RewardSettings>),
];

fn decide<S: Verb>(table: Table, out: &Path) -> Result<(Table, Run), SettingsError> {
    let mut settings = S::from_table(table)?;
    settings.run_mut().out = out.to_path_buf();
    settings.validate()?;
    Ok((settings.to_table(), |table, resume| verb::run(&S::from_table(table.clone())?, resume)))
}

/// Runs the stages that are not finished, in order.
pub(crate) fn run(args: &RunArgs) -> Result<Ending, CliError> {
    let file = open(&args.recipe)?;
    let stages = stages(&file, args)?;
    if args.dry_run {
        for stage in &stages {
            text::data(&format!("# {}: cavy {}\n{}", stage.name, stage.verb, stage.settings));
        }
        return Ok(Ending::Done);
    }
    for (index, stage) in stages.iter().enumerate() {
        let title = format!("stage {} of {}: {}", index + 1, stages.len(), stage.name);
        let out = &stage.out;
        if out.join(DONE).exists() {
            text::say(&format!("{title}: finished before, in {}", out.display()));
            continue;
        }
        text::say(&format!("{title}, in {}", out.display()));
        // Whatever an unfinished stage left is gone on with: its checkpoints, or its start where it has none.
        if (stage.run)(&stage.settings, out.exists())? == Ending::Stopped {
            text::say("`cavy run` with the same recipe goes on");
            return Ok(Ending::Stopped);
        }
        let marker = out.join(DONE);
        fs_err::write(&marker, "").map_err(CliError::write(&marker))?;
    }
    Ok(Ending::Done)
}

/// The recipe at a path, or the built-in one of that name.
fn open(recipe: &str) -> Result<TomlFile, CliError> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == recipe) {
        return TomlFile::parse(format!("{name}.toml"), (*text).to_owned());
    }
    let path = Path::new(recipe);
    if !path.exists() {
        let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let hint = format!("give the path of a TOML file, or a built-in recipe: `{}`", names.join("`, `"));
        return Err(CliError::usage(format!("there is no recipe `{recipe}`"), hint));
    }
    TomlFile::read(path)
}

/// The stages of a recipe.
///
/// Errors: a key that recipes do not know, a stage without name or with an unknown verb, settings that cannot run.
fn stages(file: &TomlFile, args: &RunArgs) -> Result<Vec<Stage>, CliError> {
    known(file, &file.table, &["recipe", "stage"])?;
    let header = file.table.get("recipe").and_then(Value::as_table).cloned().unwrap_or_default();
    known(file, &header, &["name", "description"])?;
    let stem = Path::new(&args.recipe).file_stem().map_or("recipe".into(), |stem| stem.to_string_lossy().into_owned());
    let name = header.get("name").and_then(Value::as_str).map_or(stem, ToOwned::to_owned);
    let root = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    let tables = file.table.get("stage").and_then(Value::as_array).cloned().unwrap_or_default();
    if tables.is_empty() {
        let hint = "a stage begins with `[[stage]]` and has a name, a verb and settings";
        return Err(file.error("the recipe has no stage".to_owned(), Some(hint.to_owned()), None));
    }
    let mut stages: Vec<Stage> = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let table = table.as_table().cloned().unwrap_or_default();
        let stage = stage(file, (index, table), (&root, &stages), args)?;
        stages.push(stage);
    }
    Ok(stages)
}

/// Stage number `index`, whose settings may name the directories of stages before it as `{name}`.
fn stage(
    file: &TomlFile,
    (index, mut table): (usize, Table),
    (root, before): (&Path, &[Stage]),
    args: &RunArgs,
) -> Result<Stage, CliError> {
    let wrong = |key: &str, message: String, hint: &str| {
        Err(file.error(message, Some(hint.to_owned()), file.place(key, Some(index))))
    };
    let name = match table.remove("name") {
        Some(Value::String(name)) if is_plain(&name) => name,
        _ => {
            let message = format!("stage {} has no name of letters, digits and dashes", index + 1);
            return wrong("name", message, "write for instance `name = \"pretrain\"`");
        }
    };
    if before.iter().any(|stage| stage.name == name) {
        return wrong("name", format!("two stages are called `{name}`"), "give each stage its own name");
    }
    let verb = table.remove("verb");
    let known = |(name, _): &&(&str, Decide)| verb.as_ref().and_then(Value::as_str) == Some(*name);
    let Some(&(verb, decide)) = VERBS.iter().find(known) else {
        let found = verb.map_or("nothing".to_owned(), |verb| verb.to_string());
        let names = VERBS.map(|(name, _)| format!("\"{name}\"")).join(", ");
        return wrong("verb", format!("`verb` is {found}, expected {names}"), "the verb is that of `cavy`");
    };
    let refers = |value: &Value| value.as_str().is_some_and(|text| text.contains('{'));
    let has_model = verb != PretrainSettings::VERB && !table.get("model").is_some_and(refers);
    if let Some(model) = args.model.as_ref().filter(|_| has_model) {
        table.insert("model".to_owned(), Value::String(model.clone()));
    }
    for (_, value) in &mut table {
        refer(value, before);
    }
    if !args.data.is_empty() && before.first().is_none_or(|first| first.verb == verb) {
        table.insert("data".to_owned(), Value::Array(args.data.iter().cloned().map(Value::String).collect()));
    }
    let blame = |error: SettingsError| file.setting_error(&error, Some(index));
    let out = root.join(format!("{:02}-{name}", index + 1));
    let (settings, run) = decide(table, &out).map_err(blame)?;
    Ok(Stage { name, verb, out, settings, run })
}

/// Puts the directories of earlier stages where `{name}` stands.
fn refer(value: &mut Value, before: &[Stage]) {
    match value {
        Value::String(text) => {
            for stage in before {
                let place = format!("{{{}}}", stage.name);
                *text = text.replace(&place, &stage.out.display().to_string());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, before)),
        _ => {}
    }
}

/// Whether a name can be part of a directory's.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

/// Checks that `table` has no other keys than `names`.
fn known(file: &TomlFile, table: &Table, names: &[&str]) -> Result<(), CliError> {
    let Some(key) = table.keys().find(|key| !names.contains(&key.as_str())) else { return Ok(()) };
    let list = format!("expected one of `{}`", names.join("`, `"));
    let hint = nearest(key, names.iter().copied()).map_or(list, |name| format!("did you mean `{name}`?"));
    Err(file.error(format!("unknown key `{key}`"), Some(hint), file.place(key, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(recipe: &str) -> RunArgs {
        RunArgs { recipe: recipe.to_owned(), data: Vec::new(), model: Some("m".to_owned()), out: None, dry_run: false }
    }

    fn read(text: &str, args: &RunArgs) -> Result<Vec<Stage>, CliError> {
        stages(&TomlFile::parse("r.toml".into(), text.into())?, args)
    }

    #[test]
    fn the_built_in_recipe_can_run_as_it_is() {
        let stages = stages(&open("quickstart").unwrap(), &args("quickstart")).unwrap();
        assert_eq!(stages[0].out, Path::new("runs/quickstart/01-pretrain"));
    }

    #[test]
    fn every_recipe_of_the_tree_can_run_once_it_has_data() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
        let mut seen = 0;
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if !fs_err::read_to_string(&path).unwrap().contains("[[stage]]") {
                // A recipe of `cavy data`, whose tests read it.
                continue;
            }
            let args = RunArgs { data: vec!["text.txt".into()], ..args(&path.display().to_string()) };
            assert!(!stages(&open(&args.recipe).unwrap(), &args).unwrap().is_empty(), "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 3);
    }

    #[test]
    fn a_stage_can_name_the_directory_of_one_before_it() {
        let text = "[[stage]]\nname='a'\nverb='pretrain'\ndata='x'\n\
                    [[stage]]\nname='b'\nverb='pretrain'\ndata='x'\ntokenizer='{a}/model/tokenizer.json'";
        let stages = read(text, &RunArgs { out: Some("here".into()), ..args("r") }).unwrap();
        assert_eq!(stages[1].settings["tokenizer"].as_str().unwrap(), "here/01-a/model/tokenizer.json");
        assert_eq!(stages[1].out, Path::new("here/02-b"));
    }

    #[test]
    fn data_on_the_command_line_goes_before_the_recipes() {
        let text = "[[stage]]\nname='a'\nverb='pretrain'\ndata='x'";
        let stages = read(text, &RunArgs { data: vec!["y".into()], ..args("r") }).unwrap();
        assert_eq!(stages[0].settings["data"].as_array().unwrap(), &[Value::from("y")]);
    }

    #[test]
    fn broken_recipes_are_refused_with_what_is_wrong() {
        for (text, message) in [
            ("[recipe]\nnam = 'x'", "unknown key `nam`"),
            ("[[stages]]\nname = 'x'", "unknown key `stages`"),
            ("", "the recipe has no stage"),
            ("[[stage]]\nverb = 'pretrain'", "stage 1 has no name of letters, digits and dashes"),
            ("[[stage]]\nname = '../x'\nverb = 'pretrain'", "stage 1 has no name of letters, digits and dashes"),
            (
                "[[stage]]\nname = 'x'\nverb = 'sing'",
                "`verb` is \"sing\", expected \"pretrain\", \"sft\", \"classify\", \"dpo\", \"reward\"",
            ),
            ("[[stage]]\nname = 'x'\nverb = 'pretrain'\nlr = 1", "unknown key `lr`"),
            ("[[stage]]\nname = 'x'\nverb = 'pretrain'", "`data` is nothing, expected at least one path"),
        ] {
            assert_eq!(read(text, &args("r")).unwrap_err().to_string(), message, "{text}");
        }
    }
}
