//! Workers that are processes: this program, started again.
//!
//! ```text
//! trainer                                      worker
//! build()   is the recipe's type registered?
//! epoch     recipe -> sealed file
//!           socket pair ─────────────────────► standard input
//!           /proc/self/exe, argv[0] = mark ──► main ─► worker_entry sees the mark
//!           hello + descriptors ─────────────► takes the socket, reads the recipe, joins the engine
//!                                              works; last words into the socket if it cannot
//! ```
//!
//! A fork of a program with threads may find any lock of its libraries taken for ever, so nothing but a new program is
//! safe. Nothing that a worker's own children would inherit marks it: neither the environment nor a descriptor.

mod children;
mod entry;
mod hello;

use std::any::TypeId;
use std::fmt;
use std::sync::Arc;

use forebay_engine::Engine;
use forebay_shm::sys;
use serde::Serialize;

use crate::crewed::Workers;
use crate::recipe::Mix;
use crate::worker::Start;
use crate::{Error, recipe::Source};

pub use entry::{WorkerEntry, worker_entry};

use children::{Children, ProcessCrew};

/// How a loader's worker processes are started.
pub(crate) struct Processes {
    recipe: Box<dyn Fn() -> Result<Vec<u8>, postcard::Error> + Send + Sync>,
    type_name: &'static str,
    kind: u32,
    args: Vec<String>,
}

impl Processes {
    /// For workers that use `mix`.
    ///
    /// # Errors
    /// When the program's entry does not know the type of `mix`: then a worker could not begin.
    pub(crate) fn new<S, C>(mix: Arc<Mix<S, C>>, args: Vec<String>) -> Result<Self, Error>
    where
        S: Source + Serialize + 'static,
        C: Serialize + Send + Sync + 'static,
    {
        let type_name = std::any::type_name::<Mix<S, C>>();
        let kind = entry::place(TypeId::of::<Mix<S, C>>(), std::any::type_name::<(S, C)>())?;
        Ok(Self { recipe: Box::new(move || postcard::to_stdvec(&*mix)), type_name, kind, args })
    }

    /// Starts one process for each worker of `engine`.
    pub(crate) fn start(&self, engine: &mut Engine, start: Start) -> Result<Box<dyn Workers>, Error> {
        let recipe = (self.recipe)().map_err(|error| {
            Error::config(format!(
                "the dataset cannot be serialised for worker processes: {error}; fields with serde's flatten, or of unknown \
                 length, need another form"
            ))
        })?;
        let recipe = sys::sealed_file(&recipe)?;
        let children =
            Arc::new(Children::start(engine, start, (self.kind, self.type_name), &self.args, &recipe)?);
        engine.attach(Box::new(ProcessCrew(children.clone())));
        Ok(Box::new(children))
    }
}

impl fmt::Debug for Processes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Processes");
        text.field("type_name", &self.type_name).field("args", &self.args).finish_non_exhaustive()
    }
}
