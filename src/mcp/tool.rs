//! What is offered to an assistant.

use serde_json::{Map, Value, json};

/// A tool.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// What it does, for the assistant.
    pub description: &'static str,
    /// What it takes.
    pub arguments: &'static [Argument],
    /// What it changes.
    pub effect: Effect,
}

/// An argument of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Whether it must be given.
    pub is_required: bool,
    /// What it means.
    pub description: &'static str,
}

/// What an argument may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Yes or no.
    Flag,
    /// A whole number.
    Number {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
}

/// What a tool changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    Reads,
    /// It adds something, and replaces nothing.
    Adds,
    /// Something may be gone after it.
    Destroys,
}

/// What a tool answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The answer for people; `None` for the data as it is.
    pub text: Option<String>,
    /// The answer for programs: an object.
    pub data: Value,
}

impl Output {
    /// An answer without words of its own.
    pub fn of(data: Value) -> Self {
        Self { text: None, data }
    }
}

impl Tool {
    /// The tool as `tools/list` has it.
    pub(super) fn declaration(&self) -> Value {
        let properties: Map<String, Value> =
            self.arguments.iter().map(|argument| (argument.name.to_owned(), argument.schema())).collect();
        let required = self.arguments.iter().filter(|argument| argument.is_required);
        json!({
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": {
                "type": "object",
                "properties": properties,
                "required": required.map(|argument| argument.name).collect::<Vec<_>>(),
                "additionalProperties": false,
            },
            "annotations": {
                "title": self.title,
                "readOnlyHint": self.effect == Effect::Reads,
                "destructiveHint": self.effect == Effect::Destroys,
                // What was done once is refused, or changes nothing, the second time.
                "idempotentHint": true,
                "openWorldHint": false,
            },
        })
    }
}

impl Argument {
    fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Text => json!({ "type": "string" }),
            Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        };
        schema["description"] = json!(self.description);
        schema
    }
}
