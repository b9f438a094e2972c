//! Links the library so that it stays in memory once it is loaded, however often a host calls `dlclose`:
//! its threads run and SQLite has pointers into it for as long as the process lives. And so that it is small, by what the
//! linker and the loader of this machine understand.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Functions of the same code become one.
const FOLDED: &str = "-Wl,--icf=all";
/// What the loader has to relocate is told in bits: a megabyte less to read at each load. glibc 2.36 and later know that.
const PACKED: &str = "-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let system = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if matches!(system.as_str(), "linux" | "android" | "freebsd" | "netbsd") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && is_for_this_machine() {
        for argument in [FOLDED, PACKED] {
            if works(argument) {
                println!("cargo::rustc-cdylib-link-arg={argument}");
            }
        }
    }
}

/// Whether the library is for Linux as it is here. Who names a linker builds for other machines too, and knows best.
fn is_for_this_machine() -> bool {
    let is_linux = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu");
    is_linux && env::var_os("RUSTC_LINKER").is_none() && env::var_os("HOST") == env::var_os("TARGET")
}

/// Whether a program that is linked with `argument` runs.
fn works(argument: &str) -> bool {
    let (Some(rustc), Some(folder)) = (env::var_os("RUSTC"), env::var_os("OUT_DIR")) else { return false };
    let folder = PathBuf::from(folder);
    let (source, program) = (folder.join("probe.rs"), folder.join("probe"));
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let mut link = Command::new(rustc);
    link.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    link.arg("-Clink-arg=".to_owned() + argument).arg("-o").args([&program, &source]);
    let succeeds = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    std::fs::write(&source, "fn main() {}").is_ok()
        && succeeds(&mut link)
        && succeeds(&mut Command::new(&program))
}
