//! YAML as a tree whose nodes know their lines.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};

/// The largest number of nodes of a tree; aliases count as often as they are used.
const MOST_NODES: usize = 200_000;
/// Nothing that makes sense is nested deeper.
const DEEPEST: usize = 32;

/// A value in a document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it begins, from 1.
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Member>),
}

/// One key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: String,
    /// The line of the key, from 1.
    pub(super) line: usize,
    pub(super) value: Node,
}

impl Content {
    /// What it is, for messages.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a section of keys",
        }
    }
}

/// A line, and what is wrong there.
#[derive(Debug)]
pub(super) struct Broken(pub(super) usize, pub(super) String);

type Result<T> = std::result::Result<T, Broken>;

/// The tree of a text; an empty text is [`Content::Null`].
///
/// # Errors
/// What is no YAML, keys that are no text, keys that are given twice, more than one document.
pub(super) fn parse(text: &str) -> Result<Node> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut tree = Tree { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut root = None;
    loop {
        let (event, line) = tree.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if root.is_some() => {
                return Err(Broken(
                    line,
                    "a second document begins here, and only one is read: remove the ---".into(),
                ));
            }
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            event => root = Some(tree.node(event, line, 0)?),
        }
    }
    Ok(root.unwrap_or(Node { line: 1, content: Content::Null }))
}

struct Tree<'t> {
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'t> Tree<'t> {
    /// The next event, and the line where it begins.
    fn next(&mut self) -> Result<(Event<'t>, usize)> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line().max(1))),
            Some(Err(e)) => Err(Broken(e.marker().line().max(1), format!("this is not YAML: {}", e.info()))),
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'t>, line: usize, depth: usize) -> Result<Node> {
        self.count(1, line)?;
        if depth > DEEPEST {
            return Err(Broken(line, format!("this is nested more than {DEEPEST} deep")));
        }
        let (anchor, content) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(text.into_owned(), style)),
            Event::SequenceStart(anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                let node =
                    node.ok_or_else(|| Broken(line, "this alias stands before what it means".into()))?;
                self.count(node.size(), line)?;
                return Ok(node);
            }
            _ => return Err(Broken(line, "this is not YAML".into())),
        };
        let node = Node { line, content };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, line: usize) -> Result<()> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            return Err(Broken(line, format!("here the file comes to have more than {MOST_NODES} values")));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Content> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Content::Sequence(items)),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Content> {
        let mut members: Vec<Member> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, line) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event, line)?;
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            if key == "<<" {
                merged.extend(members_to_merge(value)?);
            } else if let Some(first) = members.iter().find(|member| member.key == key) {
                let message =
                    format!("the key '{key}' is given twice, first in line {}: keep one", first.line);
                return Err(Broken(line, message));
            } else {
                members.push(Member { key, line, value });
            }
        }
        // What the mapping has of its own wins, and what was merged first.
        for member in merged {
            if !members.iter().any(|own| own.key == member.key) {
                members.push(member);
            }
        }
        Ok(Content::Mapping(members))
    }

    fn key(&mut self, event: Event<'t>, line: usize) -> Result<String> {
        let node = self.node(event, line, 0)?;
        match node.content {
            Content::Scalar(key) => Ok(key),
            other => Err(Broken(line, format!("a key is a word, and this is {}", other.name()))),
        }
    }
}

impl Node {
    /// How many nodes it has, itself counted.
    fn size(&self) -> usize {
        match &self.content {
            Content::Null | Content::Scalar(_) => 1,
            Content::Sequence(items) => 1 + items.iter().map(Self::size).sum::<usize>(),
            Content::Mapping(members) => {
                1 + members.iter().map(|member| 1 + member.value.size()).sum::<usize>()
            }
        }
    }
}

/// `null` where YAML means it: only a text without quotes.
fn scalar(text: String, style: ScalarStyle) -> Content {
    let is_null = matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
    if style == ScalarStyle::Plain && is_null { Content::Null } else { Content::Scalar(text) }
}

/// The members that `<<: *alias` or `<<: [*one, *other]` brings.
fn members_to_merge(value: Node) -> Result<Vec<Member>> {
    match value.content {
        Content::Mapping(members) => Ok(members),
        Content::Sequence(items) => {
            let parts = items.into_iter().map(members_to_merge).collect::<Result<Vec<_>>>()?;
            Ok(parts.into_iter().flatten().collect())
        }
        other => {
            Err(Broken(value.line, format!("'<<' takes sections of keys, and this is {}", other.name())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(node: &Node) -> String {
        match &node.content {
            Content::Null => format!("null@{}", node.line),
            Content::Scalar(text) => format!("{text}@{}", node.line),
            Content::Sequence(items) => {
                format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" "))
            }
            Content::Mapping(members) => {
                let member = |m: &Member| format!("{}@{}={}", m.key, m.line, shown(&m.value));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(node) => shown(&node),
            Err(Broken(line, message)) => format!("{line}: {message}"),
        }
    }

    #[test]
    fn keys_and_values_know_their_lines() {
        assert_eq!(read("a: 1\n# remark\nb:\n  - x: 'y'\n  - z\n"), "{a@1=1@1 b@3=[{x@4=y@4} z@5]}");
        assert_eq!(
            read("a:\n  &m {k: v}\nb:\n  <<: *m\n  k: own\n  n: ~\n"),
            "{a@1={k@2=v@2} b@3={k@5=own@5 n@6=null@6}}"
        );
        assert_eq!(read("a: &x 1\nb: *x\n"), "{a@1=1@1 b@2=1@1}");
        assert_eq!(read(""), "null@1");
        assert_eq!(read("---\na: \"null\"\n...\n"), "{a@2=null@2}");
        assert_eq!(read("\u{feff}a: 1\r\nb: 2\r\n"), "{a@1=1@1 b@2=2@2}");
    }

    #[test]
    fn what_is_broken_names_its_line() {
        assert!(read("a: 1\nb: [1, 2\nc: 3\n").starts_with("3: "), "{}", read("a: 1\nb: [1, 2\nc: 3\n"));
        assert!(read("a: 1\n\tb: 2\n").contains("this is not YAML"));
        assert_eq!(read("a: 1\nb: 2\na: 3\n"), "3: the key 'a' is given twice, first in line 1: keep one");
        assert_eq!(
            read("a: 1\n---\nb: 2\n"),
            "2: a second document begins here, and only one is read: remove the ---"
        );
        assert_eq!(read("? [x]\n: 1\n"), "1: a key is a word, and this is a list");
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned()
            + &(0..8)
                .map(|n| {
                    format!(
                        "b{n}: &b{n} [{}]\n",
                        vec![if n == 0 { "*a".into() } else { format!("*b{}", n - 1) }; 10].join(",")
                    )
                })
                .collect::<String>();
        assert!(read(&bomb).contains("more than 200000 values"), "{}", read(&bomb));
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).contains("nested more than 32 deep"), "{}", read(&deep));
        assert!(read(&"[".repeat(100_000)).starts_with("1: "));
    }
}
