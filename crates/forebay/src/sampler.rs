//! Orders that the user gives.

/// In which order an epoch visits the samples.
///
/// A closure from the number of the epoch to indices is a sampler:
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
/// # struct Numbers;
/// # impl Dataset for Numbers {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 10 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as i64))
/// #     }
/// # }
/// // Every third sample, from another one in every epoch.
/// let thirds = |epoch: u64| (epoch as usize % 3..10).step_by(3);
/// let loader = DataLoader::builder(Numbers).batch_size(4).sampler(thirds).build()?;
/// for batch in loader.epoch(1)? {
///     assert_eq!(batch?.array::<i64>("number")?.as_slice(), [1, 4, 7]);
/// }
/// # Ok::<(), Error>(())
/// ```
pub trait Sampler: Send + Sync {
    /// The indices of epoch `epoch`, in order. They are drawn as batches are sent to workers, by the thread that asks for
    /// batches.
    fn indices(&self, epoch: u64) -> Box<dyn Iterator<Item = usize> + Send + '_>;

    /// What errors call it.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }
}

impl<F, I> Sampler for F
where
    F: Fn(u64) -> I + Send + Sync,
    I: IntoIterator<Item = usize>,
    I::IntoIter: Send + 'static,
{
    fn indices(&self, epoch: u64) -> Box<dyn Iterator<Item = usize> + Send + '_> {
        Box::new(self(epoch).into_iter())
    }
}

/// Which samples each batch of an epoch has.
///
/// A closure from the number of the epoch to vectors of indices is a batch sampler:
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
/// # struct Numbers;
/// # impl Dataset for Numbers {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 10 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as i64))
/// #     }
/// # }
/// let short_then_long = |_epoch| vec![vec![0], vec![9, 8, 7]];
/// let loader = DataLoader::builder(Numbers).batch_sampler(short_then_long).build()?;
/// let lengths: Vec<usize> = loader.iter()?.map(|batch| Ok(batch?.len())).collect::<Result<_, Error>>()?;
/// assert_eq!(lengths, [1, 3]);
/// # Ok::<(), Error>(())
/// ```
pub trait BatchSampler: Send + Sync {
    /// The indices of each batch of epoch `epoch`, in order.
    fn batches(&self, epoch: u64) -> Box<dyn Iterator<Item = Vec<usize>> + Send + '_>;

    /// What errors call it.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }
}

impl<F, I> BatchSampler for F
where
    F: Fn(u64) -> I + Send + Sync,
    I: IntoIterator<Item = Vec<usize>>,
    I::IntoIter: Send + 'static,
{
    fn batches(&self, epoch: u64) -> Box<dyn Iterator<Item = Vec<usize>> + Send + '_> {
        Box::new(self(epoch).into_iter())
    }
}
