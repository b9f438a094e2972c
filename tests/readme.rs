//! The README's table of settings is the one that the code reads.

use litestream_vfs::config::settings_markdown;

#[test]
fn the_readme_has_the_table_of_settings() {
    let readme = include_str!("../README.md");
    let table = settings_markdown();
    assert!(readme.contains(&table), "README.md must have this between its `settings` marks:\n\n{table}");
}
