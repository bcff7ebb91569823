//! The picture.

use crate::lab::Story;
use crate::plan::{Result, Scale};
use crate::scenario::Outcome;

pub fn draw(path: &str, outcomes: &[Outcome], story: &Story, scale: Scale) -> Result<()> {
    let _ = (path, outcomes, story, scale);
    Ok(())
}
