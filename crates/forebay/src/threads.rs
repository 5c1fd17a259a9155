//! Workers that are threads of this program.

use std::fmt;
use std::sync::Arc;

use forebay_engine::{Engine, ThreadCrew};

use crate::crewed::Handed;
use crate::recipe::{Recipe, init_worker};
use crate::worker::{Start, work};
use crate::{BoxError, Error, WorkerInfo};

/// What [`Builder::worker_init`](crate::Builder::worker_init) was given.
#[derive(Clone)]
pub(crate) struct WorkerInit(pub(crate) Arc<Init>);

type Init = dyn Fn(&WorkerInfo) -> Result<(), BoxError> + Send + Sync;

impl fmt::Debug for WorkerInit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a closure")
    }
}

/// Starts one thread for each worker of `engine`.
pub(crate) fn start(
    engine: &mut Engine,
    handed: &Arc<Handed>,
    recipe: &Arc<dyn Recipe>,
    start: Start,
    init: Option<WorkerInit>,
) -> Result<(), Error> {
    let seats = (0..start.num_workers).map(|worker| engine.seat(worker)).collect::<Result<_, _>>()?;
    let (handed, recipe) = (handed.clone(), recipe.clone());
    let crew = ThreadCrew::start(seats, move |worker| {
        let info = start.info(worker.id(), start.epoch);
        let ready = recipe.init_worker(&info).and_then(|()| match &init {
            Some(WorkerInit(init)) => init_worker(|| init(&info)),
            None => Ok(()),
        });
        work(worker, &*recipe, start, ready, &*handed)
    })?;
    engine.attach(Box::new(crew));
    Ok(())
}
