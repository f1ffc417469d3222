//! The context schema: which inputs finish a release's configuration at deployment, checked before anything boots.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bounded::{Name, Text};

/// Inputs that one release can declare.
const MAX_INPUTS: usize = 64;
/// A value is at most this long: an SSH key, a short script, a certificate.
const MAX_VALUE_BYTES: usize = 16 * 1024;

/// The inputs of a release, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Name, ContextInput>", into = "BTreeMap<Name, ContextInput>")]
pub struct ContextSchema(BTreeMap<Name, ContextInput>);

/// One input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextInput {
    /// What a value looks like.
    #[serde(rename = "type")]
    pub kind: InputType,
    /// Whether deployment needs it.
    #[serde(default)]
    pub required: bool,
    /// Whether it is hidden in listings and logs.
    #[serde(default)]
    pub secret: bool,
    /// The value where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Text<MAX_VALUE_BYTES>>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text<400>>,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputType {
    /// Any text.
    String,
    /// A whole number of 64 bits, with sign.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// Why values do not fit a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// More inputs than a release may declare.
    #[error("{0} inputs are declared, at most {MAX_INPUTS} are allowed")]
    TooManyInputs(usize),
    /// A default that its own input would refuse.
    #[error("the default of '{0}' is not of its type, {1}")]
    BadDefault(Name, &'static str),
    /// A value for an input that is not declared.
    #[error("'{given}' is not an input of this release; it has {known}")]
    Unknown {
        /// The name given.
        given: String,
        /// The names that exist, for the message.
        known: String,
    },
    /// A required input without a value.
    #[error("'{0}' is required; give it with --set {0}=VALUE")]
    Missing(Name),
    /// A value of another type.
    #[error("'{0}' must be {1}")]
    WrongType(Name, &'static str),
    /// A value too long, or with control characters.
    #[error("the value of '{0}' is refused: {1}")]
    BadText(Name, crate::bounded::BoundError),
}

impl ContextSchema {
    /// Whether the release asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The inputs, by name.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = (&Name, &ContextInput)> {
        self.0.iter()
    }

    /// Checks what an operator gave and fills in defaults.
    ///
    /// # Errors
    /// The first value that is unknown, missing or of another type, said so that the operator can mend it.
    pub fn resolve(&self, given: &BTreeMap<String, String>) -> Result<BTreeMap<Name, String>, ContextError> {
        if let Some(unknown) = given.keys().find(|name| !self.0.keys().any(|known| **known == ***name)) {
            return Err(ContextError::Unknown { given: unknown.chars().take(80).collect(), known: self.names() });
        }
        let mut values = BTreeMap::new();
        for (name, input) in &self.0 {
            let value = match (given.get(&**name), &input.default) {
                (Some(value), _) => value.as_str(),
                (None, Some(default)) => default,
                (None, None) if input.required => return Err(ContextError::Missing(name.clone())),
                (None, None) => continue,
            };
            let text =
                Text::<MAX_VALUE_BYTES>::try_from(value).map_err(|error| ContextError::BadText(name.clone(), error))?;
            if !input.kind.fits(&text) {
                return Err(ContextError::WrongType(name.clone(), input.kind.description()));
            }
            values.insert(name.clone(), text.into());
        }
        Ok(values)
    }

    fn names(&self) -> String {
        if self.0.is_empty() {
            return "none".into();
        }
        self.0.keys().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
    }
}

impl TryFrom<BTreeMap<Name, ContextInput>> for ContextSchema {
    type Error = ContextError;

    fn try_from(inputs: BTreeMap<Name, ContextInput>) -> Result<Self, ContextError> {
        if inputs.len() > MAX_INPUTS {
            return Err(ContextError::TooManyInputs(inputs.len()));
        }
        for (name, input) in &inputs {
            if input.default.as_ref().is_some_and(|default| !input.kind.fits(default)) {
                return Err(ContextError::BadDefault(name.clone(), input.kind.description()));
            }
        }
        Ok(Self(inputs))
    }
}

impl From<ContextSchema> for BTreeMap<Name, ContextInput> {
    fn from(schema: ContextSchema) -> Self {
        schema.0
    }
}

impl InputType {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::String => true,
            Self::Integer => value.parse::<i64>().is_ok(),
            Self::Boolean => matches!(value, "true" | "false"),
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Integer => "a whole number",
            Self::Boolean => "'true' or 'false'",
        }
    }
}
