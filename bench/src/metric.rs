//! One figure, and how many of them become a line of the table.

use serde_json::{Value, json};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The more the better.
    Higher,
    /// The less the better.
    Lower,
}

/// One figure of one run.
#[derive(Clone, Debug)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// How much.
    pub value: f64,
}

impl Metric {
    /// A figure of which more is better.
    pub fn higher(name: &str, unit: &str, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), better: Better::Higher, value }
    }

    /// A figure of which less is better.
    pub fn lower(name: &str, unit: &str, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), better: Better::Lower, value }
    }

    /// As a child process prints it.
    pub fn to_json(&self) -> Value {
        json!({ "name": self.name, "unit": self.unit, "higher": self.better == Better::Higher, "value": self.value })
    }

    /// As the parent reads it.
    pub fn from_json(value: &Value) -> Option<Self> {
        let higher = value["higher"].as_bool()?;
        Some(Self {
            name: value["name"].as_str()?.into(),
            unit: value["unit"].as_str()?.into(),
            better: if higher { Better::Higher } else { Better::Lower },
            value: value["value"].as_f64()?,
        })
    }
}

/// The value that this share of `values` stays below. They get sorted; there has to be one.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
