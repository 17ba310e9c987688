//! What `docs/monitoring` says: the dashboard's expressions and variables, the alerts, and what their expressions are
//! made of.

use std::{fs, path::PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// One of the files.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring").join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The rules' file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(rename = "name")]
    _name: String,
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    #[serde(rename = "alert")]
    pub name: String,
    pub expr: String,
    #[serde(rename = "for")]
    pub held: String,
    pub labels: Labels,
    pub annotations: Annotations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    pub severity: String,
    pub area: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations {
    pub summary: String,
    pub description: String,
}

pub fn alerts() -> Vec<Alert> {
    let rules: Rules = serde_saphyr::from_str(&read("alerts.yaml")).expect("rules");
    rules.groups.into_iter().flat_map(|group| group.rules).collect()
}

/// The unit tests of the rules: the alerts that are expected to fire in each case.
pub fn alerts_tested() -> Vec<Vec<String>> {
    let file: Value = serde_saphyr::from_str(&read("alerts_test.yaml")).expect("rule tests");
    let cases = list(&file["tests"]).iter().flat_map(|test| list(&test["promql_expr_test"]));
    let name = |labels: &str| labels.split('"').nth(1).expect("{alertname=\"…\"}").to_owned();
    let firing = |case: &Value| list(&case["exp_samples"]).iter().map(|sample| name(text(&sample["labels"]))).collect();
    cases.map(firing).collect()
}

/// A query of a panel.
pub struct Target {
    pub panel: String,
    pub expr: String,
    /// It is asked for one value; if not, for a range.
    pub instant: bool,
}

/// A variable whose values are those of a label.
pub struct Variable {
    pub name: String,
    pub selector: String,
    pub label: String,
}

/// The dashboard.
pub struct Dashboard(Value);

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}"))
}

impl Dashboard {
    pub fn read() -> Self {
        Self(serde_json::from_str(&read("dashboard.json")).expect("JSON"))
    }

    pub fn panels(&self) -> &[Value] {
        list(&self.0["panels"])
    }

    pub fn targets(&self) -> Vec<Target> {
        let targets =
            self.panels().iter().flat_map(|panel| list(&panel["targets"]).iter().map(move |one| (panel, one)));
        let target = |(panel, target): (&Value, &Value)| Target {
            panel: text(&panel["title"]).to_owned(),
            expr: text(&target["expr"]).to_owned(),
            instant: target["instant"] == true,
        };
        targets.map(target).collect()
    }

    /// The variables that are asked from Prometheus: `label_values(selector, label)`.
    pub fn variables(&self) -> Vec<Variable> {
        let asked = list(&self.0["templating"]["list"]).iter().filter(|variable| variable["type"] == "query");
        let variable = |variable: &Value| {
            let query = text(&variable["query"]["query"]);
            let arguments = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) = arguments.and_then(|both| both.rsplit_once(", ")).expect("label_values(…, …)");
            Variable {
                name: text(&variable["name"]).to_owned(),
                selector: selector.to_owned(),
                label: label.to_owned(),
            }
        };
        asked.map(variable).collect()
    }
}

/// What of an expression stands outside of quotes and braces, with where it stands.
fn outside(expr: &str) -> impl Iterator<Item = (usize, char)> {
    let (mut quoted, mut braces) = (false, false);
    expr.char_indices().filter(move |(_, letter)| {
        let inside = quoted || braces;
        match letter {
            '"' => quoted = !quoted,
            '{' if !quoted => braces = true,
            '}' if !quoted => braces = false,
            _ => {}
        }
        !inside
    })
}

/// The selectors of an expression, such as `up` and `{job="cairn"}`. All are written with braces.
pub fn selectors(expr: &str) -> Vec<(&str, &str)> {
    let selector = |(at, _): (usize, char)| {
        let is_name = |letter: char| letter.is_ascii_alphanumeric() || "_:".contains(letter);
        let start = expr[..at].rfind(|letter| !is_name(letter)).map_or(0, |end| end + 1);
        let end = expr[at..].find('}').expect("a closing brace") + at;
        (&expr[start..at], &expr[at..=end])
    };
    outside(expr).filter(|(_, letter)| *letter == '{').map(selector).collect()
}

/// An expression with a subtraction for each comparison. Comparisons bind less than all arithmetic and more than `and`,
/// so it groups as before. It has data where both sides of each comparison have, and is not a number where one of them
/// is none.
pub fn margin(expr: &str) -> String {
    assert!(!expr.contains("bool"), "a comparison that does not filter is not taken: {expr}");
    let compares: Vec<usize> = outside(expr).filter(|(_, letter)| "<>=!".contains(*letter)).map(|(at, _)| at).collect();
    let mut margin = String::with_capacity(expr.len());
    for (at, letter) in expr.char_indices() {
        match compares.binary_search(&at) {
            Err(_) => margin.push(letter),
            // The second letter of `>=`.
            Ok(_) if at > 0 && compares.binary_search(&(at - 1)).is_ok() => {}
            Ok(_) => margin.push('-'),
        }
    }
    margin
}

#[test]
fn comparisons_become_subtractions() {
    let expr = r#"a{x="<", y!="1"} / (b{} > 0) >= 0.8 and on (job) c{z=~"{=}"} - d{} != 1"#;
    assert_eq!(margin(expr), r#"a{x="<", y!="1"} / (b{} - 0) - 0.8 and on (job) c{z=~"{=}"} - d{} - 1"#);
    let names: Vec<_> = selectors(r#"sum by (x) (rate(a_b:c{j="1"}[5m])) - b{}"#);
    assert_eq!(names, [("a_b:c", r#"{j="1"}"#), ("b", "{}")]);
}
