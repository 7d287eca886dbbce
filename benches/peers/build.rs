//! Compiles the part of etcd's API that is used, and the echo, without protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    // Where it runs, not where it was compiled: clones may share a target directory.
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed={}", root.display());

    let files = ["etcd.proto", "echo.proto"].map(|name| root.join(name));
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).open_files(&files)?;
    let descriptors = out.join("peers.bin");
    std::fs::write(&descriptors, compiler.file_descriptor_set().encode_to_vec())?;
    // Bytes fields share the buffer they came in: the load generator should not be what is measured.
    tonic_build::configure()
        .file_descriptor_set_path(&descriptors)
        .skip_protoc_run()
        .bytes(["."])
        .emit_rerun_if_changed(false)
        .compile_protos(&files, &[root])?;
    Ok(())
}
