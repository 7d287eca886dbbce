//! Compiles the protocols between nodes and with clients, without protoc.
//!
//! protox makes two descriptor sets: one of the public API, comments included, which the node serves through
//! reflection; and one of everything, from which messages and services are generated twice, for tonic and for the
//! simulator's tonic. The durable records in `holdfast/storage` are compiled by the storage crate.

use std::error::Error;
use std::path::{Path, PathBuf};

use protox::prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    // Where it runs, not where it was compiled: clones may share a target directory.
    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);

    let public = files(&root.join("holdfast/v1"))?;
    let internal = files(&root.join("holdfast/internal/v1"))?;

    std::fs::write(out.join("public.bin"), descriptors(&root, &public)?)?;
    let everything = out.join("everything.bin");
    let all: Vec<PathBuf> = public.into_iter().chain(internal).collect();
    std::fs::write(&everything, descriptors(&root, &all)?)?;

    // Maps in key order, so that a simulated run does the same every time; bytes fields share the buffer they
    // came in.
    tonic_build::configure()
        .file_descriptor_set_path(&everything)
        .skip_protoc_run()
        .btree_map(["."])
        .bytes(["."])
        .emit_rerun_if_changed(false)
        .compile_protos(&all, &[root])?;
    Ok(())
}

/// The .proto files of a directory, in order; cargo is told to look at the directory and at each of them.
fn files(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// An encoded descriptor set of these files and all they import.
fn descriptors(root: &Path, files: &[PathBuf]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut compiler = protox::Compiler::new([root])?;
    compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(files)?;
    Ok(compiler.file_descriptor_set().encode_to_vec())
}
