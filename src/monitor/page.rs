//! The page for people: one document without outside resources, which asks for `/status.json` again and again.

/// The page.
pub(super) const HTML: &str = include_str!("page.html");

#[cfg(test)]
mod tests {
    use super::HTML;

    #[test]
    fn nothing_is_fetched_from_elsewhere() {
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            // The name space of SVG is no address that is fetched.
            let html = HTML.replace("http://www.w3.org/2000/svg", "");
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(!HTML.contains("innerHTML"), "text of databases is never taken for markup");
    }
}
