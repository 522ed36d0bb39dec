//! The fit beside SciPy's, on points that both languages have; see `testdata/scaling/fit_scipy.py`.

use cavy_scaling::fit::{DELTA, Grid, fit};
use cavy_scaling::points::read_csv;
use std::path::Path;

#[test]
fn the_fit_is_scipys_to_four_digits_and_its_objective_to_eight() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/scaling");
    let golden = fs_err::read_to_string(folder.join("fits.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let golden = &golden["synthetic.csv"];
    let points = read_csv(&folder.join("synthetic.csv")).unwrap();
    let found = fit(&points, DELTA, &Grid::small(), 2).unwrap();
    let pairs = [
        ("E", found.law.e, 1e-5),
        ("A", found.law.a, 1e-4),
        ("B", found.law.b, 1e-4),
        ("alpha", found.law.alpha, 1e-5),
        ("beta", found.law.beta, 1e-5),
        ("objective", found.objective, 1e-8),
    ];
    for (name, found, within) in pairs {
        let expected = golden[name].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < within, "{name}: {found} instead of {expected}");
    }
    assert!(found.agreeing > 36, "{} of {} starts", found.agreeing, found.starts);
}
