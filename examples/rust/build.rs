//! Where the library is: $FACENET_LIB_DIR, else what pkg-config says.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=FACENET_LIB_DIR");
    let folder = std::env::var("FACENET_LIB_DIR").ok().or_else(|| {
        let told = Command::new("pkg-config").args(["--variable=libdir", "facenet-c"]).output().ok()?;
        Some(String::from_utf8(told.stdout).ok()?.trim().to_string()).filter(|text| !text.is_empty())
    });
    if let Some(folder) = folder {
        println!("cargo:rustc-link-search=native={folder}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
    println!("cargo:rustc-link-lib=dylib=facenet");
}
