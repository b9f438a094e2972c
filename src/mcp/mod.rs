//! The Model Context Protocol, by which assistants use tools: a message of JSON-RPC comes in, an answer goes out. It knows
//! neither how messages come nor what the tools do.
//!
//! | file | what it is |
//! | --- | --- |
//! | `tool` | what is offered: names, arguments and their schema, what a tool may change |
//! | `arguments` | the arguments of a call, checked |
//!
//! There are no sessions: each message is answered by itself, by whichever process it comes to.

mod arguments;
mod tool;

use serde_json::{Map, Value, json};

pub use arguments::Arguments;
pub use tool::{Argument, Effect, Kind, Output, Tool};

use crate::error::Result;

/// The versions of the protocol that are spoken, the latest first.
pub const VERSIONS: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// What an assistant is told of all this.
const INSTRUCTIONS: &str = "\
SQLite databases that are replicated to object storage by litestream_vfs. Begin with litestream_status: it says in words \
how each database and replica stands. litestream_history lists the points that a replica can be restored to; \
litestream_restore writes a new file and never replaces one. Where a tool takes 'path', name a database or the URL of a \
replica as litestream_databases lists them.";

/// What a message is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing: it was a notification, or an answer.
    Nothing,
    /// A message.
    Message(String),
    /// A message that says that there was none.
    NoMessage(String),
}

/// Messages that are answered together, at most.
const MOST_TOGETHER: usize = 16;
/// Bytes of answers after which further messages of a list are refused.
const LONGEST_TOGETHER: usize = 1 << 20;

/// What calls a tool.
pub type Calling<'a> = &'a dyn Fn(&Tool, &Arguments) -> Result<Output>;

/// An error of the protocol.
#[derive(Debug)]
struct Fault {
    code: i32,
    message: String,
}

impl Fault {
    const PARSE_ERROR: i32 = -32700;
    const INVALID_REQUEST: i32 = -32600;
    const METHOD_NOT_FOUND: i32 = -32601;
    const INVALID_PARAMS: i32 = -32602;

    fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn message(&self, id: &Value) -> Value {
        json!({ "jsonrpc": "2.0", "id": id, "error": { "code": self.code, "message": self.message } })
    }
}

/// Answers `message`, of somebody to whom `tools` are offered, and who may be gone before all of it is answered.
pub fn reply(tools: &[&Tool], message: &[u8], call: Calling<'_>, is_gone: &dyn Fn() -> bool) -> Reply {
    let messages = match serde_json::from_slice(message) {
        // Versions before 2025-06-18 may send several at once.
        Ok(Value::Array(messages)) if (1..=MOST_TOGETHER).contains(&messages.len()) => messages,
        Ok(Value::Array(_)) => {
            let why = format!("a list has 1 to {MOST_TOGETHER} messages");
            return Reply::NoMessage(
                Fault::new(Fault::INVALID_REQUEST, why).message(&Value::Null).to_string(),
            );
        }
        Ok(message) => {
            return answer(tools, &message, call)
                .map_or(Reply::Nothing, |answer| Reply::Message(answer.to_string()));
        }
        Err(e) => {
            let fault = Fault::new(Fault::PARSE_ERROR, format!("this is no JSON: {e}"));
            return Reply::NoMessage(fault.message(&Value::Null).to_string());
        }
    };
    let mut answers = String::new();
    for message in messages.iter().take_while(|_| !is_gone()) {
        let answer = if answers.len() < LONGEST_TOGETHER {
            answer(tools, message, call)
        } else {
            let id = message.get("id").unwrap_or(&Value::Null);
            let why = "the answers to the messages before it are long: ask for this alone";
            Some(Fault::new(Fault::INVALID_REQUEST, why).message(id))
        };
        if let Some(answer) = answer {
            answers.push(if answers.is_empty() { '[' } else { ',' });
            answers.push_str(&answer.to_string());
        }
    }
    if answers.is_empty() { Reply::Nothing } else { Reply::Message(answers + "]") }
}

/// The answer to one message, if it is a request.
fn answer(tools: &[&Tool], message: &Value, call: Calling<'_>) -> Option<Value> {
    let id = message.get("id").filter(|id| id.is_string() || id.is_i64() || id.is_u64());
    let invalid =
        |why: &str| Some(Fault::new(Fault::INVALID_REQUEST, why).message(id.unwrap_or(&Value::Null)));
    let Some(members) = message.as_object() else { return invalid("a message is a JSON object") };
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return invalid("this is no message of JSON-RPC 2.0: 'jsonrpc' is not \"2.0\"");
    }
    let Some(method) = members.get("method") else {
        let is_answer = members.contains_key("result") || members.contains_key("error");
        return if is_answer { None } else { invalid("the message has no 'method'") };
    };
    let Some(method) = method.as_str() else { return invalid("'method' is not text") };
    // A notification is never answered, whatever it says.
    members.get("id")?;
    let Some(id) = id else { return invalid("'id' is neither text nor a whole number") };
    let params = match members.get("params") {
        None => Ok(Map::new()),
        Some(Value::Object(params)) => Ok(params.clone()),
        Some(_) => Err(Fault::new(Fault::INVALID_PARAMS, "'params' is not an object")),
    };
    Some(match params.and_then(|params| result(tools, method, &params, call)) {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(fault) => fault.message(id),
    })
}

fn result(
    tools: &[&Tool],
    method: &str,
    params: &Map<String, Value>,
    call: Calling<'_>,
) -> Result<Value, Fault> {
    match method {
        "initialize" => Ok(greeting(params.get("protocolVersion").and_then(Value::as_str))),
        "ping" => Ok(json!({})),
        "tools/list" => {
            Ok(json!({ "tools": tools.iter().map(|tool| tool.declaration()).collect::<Vec<_>>() }))
        }
        "tools/call" => called(tools, params, call),
        _ => Err(Fault::new(Fault::METHOD_NOT_FOUND, format!("there is no method '{method}' here"))),
    }
}

/// What the two sides agree on: the version that was asked for, or the latest.
fn greeting(wanted: Option<&str>) -> Value {
    let version = VERSIONS.iter().find(|version| wanted == Some(version)).unwrap_or(&VERSIONS[0]);
    json!({
        "protocolVersion": version,
        "capabilities": { "tools": { "listChanged": false } },
        "serverInfo": {
            "name": "litestream_vfs",
            "title": "Replicated SQLite databases",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "instructions": INSTRUCTIONS,
    })
}

/// What a tool answers. What it cannot do is an answer too, which the assistant reads.
fn called(tools: &[&Tool], params: &Map<String, Value>, call: Calling<'_>) -> Result<Value, Fault> {
    let fault = |message: String| Fault::new(Fault::INVALID_PARAMS, message);
    let name =
        params.get("name").and_then(Value::as_str).ok_or_else(|| fault("there is no 'name'".into()))?;
    let tool = tools.iter().find(|tool| tool.name == name);
    let tool = tool.ok_or_else(|| fault(format!("unknown tool: '{name}'")))?;
    let given = match params.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(given)) => given.clone(),
        Some(_) => return Err(fault("'arguments' is not an object".into())),
    };
    let answered = Arguments::read(tool, &given).and_then(|arguments| call(tool, &arguments));
    Ok(match answered {
        Ok(output) => {
            let text = output.text.unwrap_or_else(|| {
                serde_json::to_string_pretty(&output.data).expect("BUG: JSON cannot be written")
            });
            json!({
                "content": [{ "type": "text", "text": text }],
                "structuredContent": output.data,
                "isError": false,
            })
        }
        Err(e) => json!({ "content": [{ "type": "text", "text": e.to_string() }], "isError": true }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    const ECHO: Tool = Tool {
        name: "echo",
        title: "Echo",
        description: "Says it again.",
        arguments: &[
            Argument { name: "what", kind: Kind::Text, is_required: true, description: "What to say." },
            Argument {
                name: "times",
                kind: Kind::Number { min: 1, max: 3 },
                is_required: false,
                description: "How often.",
            },
        ],
        effect: Effect::Reads,
    };

    fn say(message: &str) -> Reply {
        let call = |_: &Tool, arguments: &Arguments| {
            let what = arguments.text("what").unwrap_or_default();
            if what == "no" {
                return Err(Error::new(ErrorKind::Denied, "not that"));
            }
            Ok(Output::of(json!({ "said": what, "times": arguments.number("times") })))
        };
        reply(&[&ECHO], message.as_bytes(), &call, &|| false)
    }

    fn message(text: &str) -> Value {
        match say(text) {
            Reply::Message(answer) => serde_json::from_str(&answer).unwrap(),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn request(method: &str, params: &Value) -> Value {
        message(&json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string())
    }

    #[test]
    fn a_list_is_short_and_so_is_its_answer_and_nobody_is_answered_who_is_gone() {
        let ask = |what: &str| {
            json!({ "jsonrpc": "2.0", "id": what.len(), "method": "tools/call",
                                       "params": { "name": "echo", "arguments": { "what": what } } })
        };
        let list = |count: usize, what: &str| Value::Array(vec![ask(what); count]).to_string();
        assert_eq!(message(&list(MOST_TOGETHER, "a")).as_array().unwrap().len(), MOST_TOGETHER);
        assert!(matches!(say(&list(MOST_TOGETHER + 1, "a")), Reply::NoMessage(_)));
        // Each answer has it twice.
        let long = "a".repeat(LONGEST_TOGETHER / 4);
        let answers = message(&list(5, &long));
        let is_refused = |answer: &Value| answer.get("error").is_some();
        assert_eq!(answers.as_array().unwrap().iter().filter(|answer| is_refused(answer)).count(), 3);
        assert_eq!(answers[4]["id"], long.len());
        let asked = std::cell::Cell::new(0);
        let call = |_: &Tool, _: &Arguments| {
            asked.set(asked.get() + 1);
            Ok(Output::of(json!({})))
        };
        reply(&[&ECHO], list(5, "a").as_bytes(), &call, &|| asked.get() == 2);
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn a_version_that_is_spoken_is_agreed_on() {
        for version in VERSIONS {
            let answer = request("initialize", &json!({ "protocolVersion": version }));
            assert_eq!(answer["result"]["protocolVersion"], version);
        }
        let answer = request("initialize", &json!({ "protocolVersion": "1999-01-01" }));
        assert_eq!(answer["result"]["protocolVersion"], VERSIONS[0]);
        assert_eq!(answer["result"]["capabilities"], json!({ "tools": { "listChanged": false } }));
        assert_eq!(answer["id"], 7);
    }

    #[test]
    fn tools_are_declared_and_called() {
        let answer = request("tools/list", &json!({}));
        let tool = &answer["result"]["tools"][0];
        assert_eq!(tool["name"], "echo");
        assert_eq!(tool["inputSchema"]["required"], json!(["what"]));
        assert_eq!(tool["inputSchema"]["additionalProperties"], false);
        assert_eq!(tool["annotations"]["readOnlyHint"], true);
        let answer =
            request("tools/call", &json!({ "name": "echo", "arguments": { "what": "yes", "times": "2" } }));
        assert_eq!(answer["result"]["structuredContent"], json!({ "said": "yes", "times": 2 }));
        assert_eq!(answer["result"]["isError"], false);
        for (arguments, why) in [
            (json!({ "what": "no" }), "not that"),
            (json!({}), "'what' is missing"),
            (json!({ "what": "" }), "'what' is missing"),
            (json!({ "what": "x", "whom": "y" }), "no argument 'whom'"),
            (json!({ "what": ["x"] }), "'what' is not text"),
            (json!({ "what": "x", "times": 4 }), "from 1 to 3"),
            (json!({ "what": "x", "times": -1 }), "from 1 to 3"),
        ] {
            let answer = request("tools/call", &json!({ "name": "echo", "arguments": arguments }));
            assert_eq!(answer["result"]["isError"], true);
            let text = answer["result"]["content"][0]["text"].as_str().unwrap();
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn faults_have_the_codes_of_json_rpc() {
        let code = |text: &str| message(text)["error"]["code"].as_i64().unwrap();
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#), -32601);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#), -32601);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"rm"}}"#), -32602);
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[1]}"#), -32602);
        for invalid in [
            "7",
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        ] {
            assert_eq!(code(invalid), -32600, "{invalid}");
        }
        for none in ["", "{", "[]", "\u{0}", &"[".repeat(100_000)] {
            assert!(matches!(say(none), Reply::NoMessage(_)), "{none:.9}");
        }
    }

    #[test]
    fn what_wants_no_answer_gets_none() {
        for silent in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"rm"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"[{"jsonrpc":"2.0","method":"notifications/initialized"}]"#,
        ] {
            assert_eq!(say(silent), Reply::Nothing, "{silent}");
        }
        let both = r#"[{"jsonrpc":"2.0","method":"x"},{"jsonrpc":"2.0","id":"a","method":"ping"}]"#;
        assert_eq!(message(both), json!([{ "jsonrpc": "2.0", "id": "a", "result": {} }]));
    }
}
