//! `diolkos image`.

use super::{failed, path, runtime};
use crate::cli::{CommandError, ImageCommand};
use crate::config::Config;
use node::image::{ImageBuilder, Loader};
use std::path::Path;

pub fn run(config: &Config, command: ImageCommand) -> Result<(), CommandError> {
    let loader = || Loader::new(&super::node::config(config), &path());
    runtime(1)?.block_on(async {
        match command {
            ImageCommand::Load { archive } => {
                for name in loader().load(&archive).await.map_err(failed)?.names {
                    println!("loaded {name}");
                }
                Ok(())
            }
            ImageCommand::List => list(&loader()).await,
            ImageCommand::Rm { image } => {
                let name = node::image::ImageName::parse(&image).map_err(failed)?.to_string();
                if loader().runtime().image_status(&name).await.map_err(failed)?.is_none() {
                    return Err(CommandError::Usage(format!("there is no image {name}")));
                }
                loader().runtime().remove_image(&name).await.map_err(failed)
            }
            ImageCommand::Pull { image } => {
                let name = node::image::ImageName::parse(&image).map_err(failed)?.to_string();
                let puller = node::image::Puller::new(loader().runtime().clone());
                let pulled = puller.ensure("", &name, "Always", &[]).await;
                pulled.map(|_| println!("pulled {name}")).map_err(|problem| failed(problem.message))
            }
            ImageCommand::Build { binary, name, output } => build(&binary, &name, &output),
        }
    })
}

async fn list(loader: &Loader) -> Result<(), CommandError> {
    let images = loader.runtime().list_images().await.map_err(failed)?;
    let mut lines: Vec<(String, u64)> =
        images.iter().flat_map(|image| image.repo_tags.iter().map(|tag| (tag.clone(), image.size))).collect();
    lines.sort();
    println!("{:<60} {:>10}", "IMAGE", "SIZE");
    for (name, size) in lines {
        println!("{:<60} {:>7.1} MB", name, size as f64 / 1e6);
    }
    Ok(())
}

/// An image of one static binary at /NAME, which is its entry point.
fn build(binary: &Path, name: &str, output: &Path) -> Result<(), CommandError> {
    let file = binary.file_name().map(|file| format!("/{}", file.to_string_lossy()));
    let file = file.ok_or_else(|| CommandError::Usage(format!("{} is no file", binary.display())))?;
    let image = ImageBuilder::new(name).map_err(failed)?.directory("/tmp", 0o1777).file(&file, 0o755, binary);
    image.entrypoint([file]).write_to(output).map_err(failed)?;
    println!("wrote {}", output.display());
    Ok(())
}
