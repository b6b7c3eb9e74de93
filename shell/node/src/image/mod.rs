//! Images: names, building, loading, pulling, and removing what nobody uses.

mod build;
mod gc;
mod load;
mod name;
mod pause;
mod pull;

pub use build::architecture;
pub use build::{BuildError, ImageBuilder};
pub use gc::{collect_images, images_to_remove};
pub use load::{LoadError, Loaded, Loader};
pub use name::{ImageName, NameError};
pub use pause::{PAUSE_IMAGE, pause_image};
pub use pull::{PullProblem, Puller, registry_auth};
