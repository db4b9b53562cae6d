//! Steps of a calculation that show themselves: the formula printed is the formula compiled.

use serde::Serialize;

/// A named number: given, or calculated from named numbers.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) formula: String,
    /// What went into the formula.
    pub(crate) inputs: Vec<(&'static str, f64)>,
    pub(crate) why: &'static str,
}

/// Calculates, records the step in `$steps`, and binds the result to its name.
///
/// The formula becomes a function of the inputs listed, so it can use nothing else.
macro_rules! step {
    ($steps:ident, $name:ident [$unit:literal] from ($($input:ident),+): $formula:expr, $why:literal) => {
        let $name = {
            fn calculate($($input: f64),+) -> f64 {
                $formula
            }
            calculate($($input),+)
        };
        $steps.push($crate::plan::step::Step {
            name: stringify!($name),
            value: $name,
            unit: $unit,
            formula: $crate::plan::step::one_line(stringify!($formula)),
            inputs: vec![$((stringify!($input), $input)),+],
            why: $why,
        });
    };
}
pub(super) use step;

/// A formula as the compiler hands it over, without line breaks.
pub(super) fn one_line(formula: &str) -> String {
    formula.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_step_shows_what_it_calculates() {
        let mut steps = Vec::new();
        let (apples, people) = (7.0, 2.0);
        step!(steps, each ["apples"] from (apples, people): (apples / people).floor(), "to share");
        let step = &steps[0];
        assert_eq!((each, step.value, step.name), (3.0, 3.0, "each"));
        assert_eq!(step.formula, "(apples / people).floor()");
        assert_eq!(step.inputs, [("apples", 7.0), ("people", 2.0)]);
    }
}
