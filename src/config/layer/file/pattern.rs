//! Patterns of file names, as Go's `filepath.Match` has them: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before a character
//! that means itself.

/// Whether the whole of `name` fits `pattern`; `None` if that is no pattern.
pub(super) fn fits(pattern: &str, name: &str) -> Option<bool> {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    check(&pattern)?;
    Some(rest_fits(&pattern, &name))
}

/// Whether `pattern` is one.
pub(super) fn is_pattern(pattern: &str) -> bool {
    check(&pattern.chars().collect::<Vec<_>>()).is_some()
}

fn check(mut pattern: &[char]) -> Option<()> {
    while let Some(first) = pattern.first() {
        pattern = match first {
            '[' => class(pattern, 'a')?.1,
            '\\' => pattern.get(2..).filter(|_| pattern.len() > 1)?,
            _ => &pattern[1..],
        };
    }
    Some(())
}

fn rest_fits(pattern: &[char], name: &[char]) -> bool {
    let Some(first) = pattern.first() else { return name.is_empty() };
    match (first, name.first()) {
        ('*', _) => (0..=name.len()).any(|skipped| rest_fits(&pattern[1..], &name[skipped..])),
        (_, None) => false,
        ('?', Some(_)) => rest_fits(&pattern[1..], &name[1..]),
        ('[', Some(c)) => {
            class(pattern, *c).is_some_and(|(is_in, rest)| is_in && rest_fits(rest, &name[1..]))
        }
        ('\\', Some(c)) => pattern.get(1) == Some(c) && rest_fits(&pattern[2..], &name[1..]),
        (own, Some(c)) => own == c && rest_fits(&pattern[1..], &name[1..]),
    }
}

/// Whether `c` is in the class that `pattern` begins with, and what follows the class; `None` if it has no end.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let mut rest = &pattern[1..];
    let negated = rest.first() == Some(&'^');
    if negated {
        rest = &rest[1..];
    }
    let (mut is_in, mut is_first) = (false, true);
    loop {
        if rest.first()? == &']' && !is_first {
            return Some((is_in != negated, &rest[1..]));
        }
        is_first = false;
        let low = one(&mut rest)?;
        let high = if rest.first()? == &'-' {
            rest = &rest[1..];
            one(&mut rest)?
        } else {
            low
        };
        is_in |= (low..=high).contains(&c);
    }
}

/// One character of a class.
fn one(rest: &mut &[char]) -> Option<char> {
    let is_escaped = rest.first()? == &'\\';
    let at = usize::from(is_escaped);
    let c = *rest.get(at)?;
    if !is_escaped && (c == '-' || c == ']') {
        return None;
    }
    *rest = &rest[at + 1..];
    Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_as_in_go() {
        for (pattern, name, expected) in [
            ("*.db", "app.db", Some(true)),
            ("*.db", ".db", Some(true)),
            ("*.db", "app.db-wal", Some(false)),
            ("*", "", Some(true)),
            ("a?c", "abc", Some(true)),
            ("a?c", "ac", Some(false)),
            ("[a-c]x", "bx", Some(true)),
            ("[^a-c]x", "bx", Some(false)),
            ("[a-c", "b", None),
            ("[]a]", "]", None),
            ("[-]", "-", None),
            (r"\*.db", "*.db", Some(true)),
            (r"\*.db", "a.db", Some(false)),
            (r"a\", "a", None),
            ("t*_*.sqlite", "t1_x.sqlite", Some(true)),
            ("é*", "éa", Some(true)),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
            assert_eq!(is_pattern(pattern), expected.is_some(), "{pattern}");
        }
    }
}
