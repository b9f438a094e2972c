//! The arguments of a call.

use serde_json::{Map, Value};

use super::tool::{Argument, Kind, Tool};
use crate::error::{Error, Result};

/// Arguments that are what the tool takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(Vec<(&'static str, Given)>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Text(String),
    Flag(bool),
    Number(u64),
}

impl Arguments {
    /// Checks what is `given` to `tool`. What is null, or empty text, is not given.
    ///
    /// # Errors
    /// `Config`: an argument that it does not take, or cannot be that, or is missing.
    pub(super) fn read(tool: &Tool, given: &Map<String, Value>) -> Result<Self> {
        let declared = |name: &str| tool.arguments.iter().find(|argument| argument.name == name);
        let mut read = Vec::new();
        for (name, value) in given {
            let Some(argument) = declared(name) else {
                let known: Vec<&str> = tool.arguments.iter().map(|argument| argument.name).collect();
                return Err(Error::config(format!(
                    "{} has no argument '{name}': it takes {}",
                    tool.name,
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )));
            };
            if let Some(value) = argument.read(value)? {
                read.push((argument.name, value));
            }
        }
        let is_given = |argument: &Argument| read.iter().any(|(name, _)| *name == argument.name);
        match tool.arguments.iter().find(|argument| argument.is_required && !is_given(argument)) {
            Some(missing) => {
                Err(Error::config(format!("'{}' is missing: {}", missing.name, missing.description)))
            }
            None => Ok(Self(read)),
        }
    }

    fn get(&self, name: &str) -> Option<&Given> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value)
    }

    /// The text `name`, if it is given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|given| if let Given::Text(text) = given { Some(&**text) } else { None })
    }

    /// Whether `name` is given and true.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == Some(&Given::Flag(true))
    }

    /// The number `name`, if it is given.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|given| if let Given::Number(number) = given { Some(*number) } else { None })
    }
}

impl Argument {
    /// What it is given, which may be text for anything: not all assistants heed types.
    fn read(&self, value: &Value) -> Result<Option<Given>> {
        let wrong = |what: &str| Error::config(format!("'{}' is not {what}", self.name));
        let text = match value {
            Value::Null => return Ok(None),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            Value::Array(_) | Value::Object(_) => return Err(wrong("text")),
        };
        Ok(Some(match self.kind {
            Kind::Text => Given::Text(text),
            Kind::OneOf(words) if words.contains(&&*text) => Given::Text(text),
            Kind::OneOf(words) => return Err(wrong(&format!("one of {}", words.join(", ")))),
            Kind::Flag => Given::Flag(text.parse().map_err(|_| wrong("true or false"))?),
            Kind::Number { min, max } => {
                let number = text.parse().ok().filter(|number| (min..=max).contains(number));
                Given::Number(number.ok_or_else(|| wrong(&format!("a whole number from {min} to {max}")))?)
            }
        }))
    }
}
