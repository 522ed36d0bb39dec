//! The comparison that changed how budgets are spent: Gopher and Chinchilla.

use super::quantity;
use crate::text;
use cavy_scaling::{approach, law, training_flops};
use serde_json::{Value, json};

/// Parameters and tokens of the two.
///
/// Source: Hoffmann et al. 2022, tables 1 and 4, <https://arxiv.org/abs/2203.15556>.
const MODELS: [(&str, f64, f64); 2] = [("Gopher", 280e9, 300e9), ("Chinchilla", 70e9, 1.4e12)];
/// Gopher's budget, which Chinchilla was given.
const BUDGET: f64 = 5.76e23;

/// Prints the example.
pub(super) fn example(as_json: bool) {
    if as_json {
        text::data(&numbers().to_string());
    } else {
        words().iter().for_each(|line| text::data(line));
    }
}

fn numbers() -> Value {
    let losses = |n: f64, d: f64| -> serde_json::Map<String, Value> {
        law::PUBLISHED.iter().map(|(name, law)| ((*name).to_owned(), json!(law.loss(n, d)))).collect()
    };
    let models: Vec<Value> = MODELS
        .iter()
        .map(|(name, n, d)| {
            json!({"name": name, "parameters": n, "tokens": d, "flops": training_flops(*n, *d), "loss": losses(*n, *d)})
        })
        .collect();
    let optima: serde_json::Map<String, Value> =
        law::PUBLISHED.iter().map(|(name, law)| ((*name).to_owned(), json!(law.optimum(BUDGET)))).collect();
    json!({"budget": BUDGET, "models": models, "optima": optima})
}

fn words() -> Vec<String> {
    let mut lines = vec![
        format!(
            "Gopher's budget was {} FLOP. Chinchilla spent the same on a quarter of the parameters.",
            quantity::shown(BUDGET)
        ),
        String::new(),
        format!("  {:<12}{:>9}{:>9}{:>9}{:>10}", "", "N", "D", "D/N", "6 N D"),
    ];
    for (name, n, d) in MODELS {
        lines.push(format!(
            "  {name:<12}{:>9}{:>9}{:>9.1}{:>10}",
            quantity::shown(n),
            quantity::shown(d),
            d / n,
            quantity::shown(training_flops(n, d))
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "  {:<18}{:>12}{:>12}{:>10}{:>12}{:>9}{:>9}",
        "expected loss by", "Gopher", "Chinchilla", "gain", "best: N", "D", "loss"
    ));
    for (name, law) in law::PUBLISHED {
        let [gopher, chinchilla] = MODELS.map(|(_, n, d)| law.loss(n, d));
        let best = law.optimum(BUDGET);
        lines.push(format!(
            "  {name:<18}{gopher:>12.4}{chinchilla:>12.4}{:>10.4}{:>12}{:>9}{:>9.4}",
            gopher - chinchilla,
            quantity::shown(best.parameters),
            quantity::shown(best.tokens),
            best.loss
        ));
    }
    lines.push(String::new());
    for number in 1..=3 {
        let n = approach::chinchilla(number).at(BUDGET);
        lines.push(format!(
            "  approach {number} of the paper: {} parameters on {} tokens",
            quantity::shown(n),
            quantity::shown(BUDGET / (6.0 * n))
        ));
    }
    let kaplan = approach::kaplan().at(BUDGET);
    lines.push(format!(
        "  Kaplan et al. before it: {} parameters on {} tokens, which is why Gopher was so large",
        quantity::shown(kaplan),
        quantity::shown(BUDGET / (6.0 * kaplan))
    ));
    lines.push(String::new());
    lines.push(
        "All constants agree that Chinchilla is the better model; Epoch's put it at the optimum itself.".to_owned(),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_law_expects_chinchilla_to_be_better() {
        let numbers = numbers();
        for (name, _) in law::PUBLISHED {
            let loss = |model: usize| numbers["models"][model]["loss"][name].as_f64().unwrap();
            assert!(loss(0) - loss(1) > 0.02, "{name}: {} and {}", loss(0), loss(1));
        }
        // Epoch's optimum is 72.3B on 1.33T; Chinchilla's 70B on 1.4T is within a per mille of its loss.
        let best = numbers["optima"]["epoch"]["loss"].as_f64().unwrap();
        assert!((numbers["models"][1]["loss"]["epoch"].as_f64().unwrap() / best - 1.0).abs() < 1e-3);
        // 1.69 + 406.4 / 280e9^0.34 + 410.7 / 300e9^0.28 = 1.69 + 0.0524 + 0.2507 = 1.9931.
        let gopher = numbers["models"][0]["loss"]["hoffmann-printed"].as_f64().unwrap();
        assert!((gopher - 1.9931).abs() < 5e-4, "{gopher}");
        assert!(words().len() > 15);
    }
}
