//! `$VAR` and `${VAR}` in a configuration file, as Go's `os.Expand` replaces them.

use super::super::Env;

/// The variable that stands for the id of the process.
const PROCESS_ID: &str = "PID";

/// A variable that is not set, and the line where it is used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) name: String,
    pub(super) line: usize,
}

/// The text with values in the place of variables; those that are not set are empty, and are returned beside it.
pub(super) fn expand(text: &str, env: &dyn Env) -> (String, Vec<Missing>) {
    let (mut out, mut missing) = (String::with_capacity(text.len()), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, used) = name(after);
        rest = &after[used..];
        match name {
            // No name follows: the character stays. Of a broken `${` nothing stays.
            None if used == 0 => out.push('$'),
            None => {}
            Some(PROCESS_ID) => out.push_str(&std::process::id().to_string()),
            Some(name) => match env.var(name) {
                Some(value) => out.push_str(&value),
                None => {
                    let before = &text[..text.len() - rest.len()];
                    missing.push(Missing { name: name.to_owned(), line: before.matches('\n').count() + 1 });
                }
            },
        }
    }
    out.push_str(rest);
    (out, missing)
}

/// The name that `text`, which stands after a `$`, begins with, and how many bytes it takes.
fn name(text: &str) -> (Option<&str>, usize) {
    let is_special = |c: char| "*#$@!?-".contains(c) || c.is_ascii_digit();
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.find('}') {
            // `${}`, and a brace that is never closed.
            Some(0) => (None, 2),
            None => (None, 1),
            Some(end) => (Some(&inner[..end]), end + 2),
        };
    }
    if let Some(first) = text.chars().next().filter(|c| is_special(*c)) {
        return (Some(&text[..first.len_utf8()]), first.len_utf8());
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if end == 0 { (None, 0) } else { (Some(&text[..end]), end) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_go_does() {
        let env = [("A", "one"), ("A_B", "two")];
        let expanded = |text: &str| expand(text, &env).0;
        assert_eq!(expanded("$A ${A} $A_B ${A}_B $A-"), "one one two one_B one-");
        assert_eq!(expanded("$ $/ a$"), "$ $/ a$");
        assert_eq!(expanded("x${}y ${unclosed"), "xy unclosed");
        assert_eq!(expanded("$PID"), std::process::id().to_string());
        assert_eq!(expanded("p$$w $1x"), "pw x");
    }

    #[test]
    fn what_is_not_set_is_empty_and_named() {
        let (text, missing) = expand("a: $A\nb: ${SECRET}\n", &[("A", "1")]);
        assert_eq!(text, "a: 1\nb: \n");
        assert_eq!(missing, [Missing { name: "SECRET".to_owned(), line: 2 }]);
    }
}
