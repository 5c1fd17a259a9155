//! Station 5: a batch as typed slices of the memory it came in.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use forebay_engine::EngineError;
use forebay_engine::layout::Value;
use forebay_shm::Region;

use crate::error::Kind;
use crate::{DType, Element, Error};

/// The samples of one step, array by array. It keeps its memory until it is dropped.
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
/// # struct Numbers;
/// # impl Dataset for Numbers {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 4 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as f32))
/// #     }
/// # }
/// let loader = DataLoader::builder(Numbers).batch_size(4).build()?;
/// for batch in &loader {
///     let mut batch = batch?;
///     let numbers = batch.array::<f32>("number")?;
///     assert_eq!((numbers.shape(), numbers.as_slice()), (&[4][..], &[0.0, 1.0, 2.0, 3.0][..]));
///     // It is yours: nobody else sees a change.
///     batch.array_mut::<f32>("number")?.as_mut_slice()[0] = 9.0;
/// }
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    len: usize,
    arrays: Vec<BatchArray>,
    copied: bool,
}

#[derive(Debug)]
struct BatchArray {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    region: Region,
}

impl Batch {
    /// How many samples.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no samples: a batch sampler may ask for such a batch.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The names of the arrays, in the order of the batch's first sample.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.iter().map(|array| array.name.as_str())
    }

    /// The element type of the array `name`.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.arrays.iter().find(|array| array.name == name).map(|array| array.dtype)
    }

    /// The array `name`, without a copy. Its first dimension is the sample.
    ///
    /// # Errors
    /// When there is no such array, or its elements are of another type.
    pub fn array<E: Element>(&self, name: &str) -> Result<ArrayView<'_, E>, Error> {
        let array = &self.arrays[self.place::<E>(name)?];
        let elements = E::view(array.region.bytes()).ok_or_else(|| array.has_no_elements())?;
        Ok(ArrayView { shape: &array.shape, elements })
    }

    /// The array `name`, to be changed in place.
    ///
    /// # Errors
    /// When there is no such array, or its elements are of another type.
    pub fn array_mut<E: Element>(&mut self, name: &str) -> Result<ArrayViewMut<'_, E>, Error> {
        let place = self.place::<E>(name)?;
        let array = &mut self.arrays[place];
        let error = array.has_no_elements();
        let elements = E::view_mut(array.region.bytes_mut()).ok_or(error)?;
        Ok(ArrayViewMut { shape: &array.shape, elements })
    }

    /// Whether it had to be copied, because the program keeps so many batches that they use the memory budget up.
    pub fn was_copied(&self) -> bool {
        self.copied
    }

    fn place<E: Element>(&self, name: &str) -> Result<usize, Error> {
        let place = self.arrays.iter().position(|array| array.name == name).ok_or_else(|| Kind::NoArray {
            name: name.into(),
            names: self.names().map(String::from).collect(),
        })?;
        let dtype = self.arrays[place].dtype;
        if dtype == E::DTYPE {
            Ok(place)
        } else {
            Err(Kind::OtherType { name: name.into(), dtype, asked: E::DTYPE }.into())
        }
    }

    /// The array `name`, taken out of the batch, still without a copy: it keeps its memory, and that only.
    ///
    /// # Errors
    /// When there is no such array, or its elements are of another type.
    pub fn take<E: Element>(&mut self, name: &str) -> Result<OwnedArray<E>, Error> {
        let place = self.place::<E>(name)?;
        if E::view(self.arrays[place].region.bytes()).is_none() {
            return Err(self.arrays[place].has_no_elements());
        }
        let BatchArray { shape, region, .. } = self.arrays.remove(place);
        Ok(OwnedArray { shape, region, elements: PhantomData })
    }

    /// What a worker described as `value`, in `regions`.
    pub(crate) fn assemble(value: Value, regions: Vec<Region>, copied: bool) -> Result<Self, Error> {
        let Value::Tuple(parts) = value else { return Err(unknown()) };
        let Ok([Value::Int(len), Value::Map(pairs)]) = <[Value; 2]>::try_from(parts) else {
            return Err(unknown());
        };
        if pairs.len() != regions.len() {
            return Err(unknown());
        }
        let arrays = pairs.into_iter().zip(regions).map(|(pair, region)| BatchArray::assemble(pair, region));
        let arrays = arrays.collect::<Option<_>>().ok_or_else(unknown)?;
        Ok(Self { len: usize::try_from(len).map_err(|_| unknown())?, arrays, copied })
    }
}

/// Our own workers write nothing else, so this is for memory that somebody has overwritten.
fn unknown() -> Error {
    EngineError::Layout("it is not one of this crate's").into()
}

impl BatchArray {
    fn assemble((name, array): (Value, Value), region: Region) -> Option<Self> {
        let (Value::Text(name), Value::Array(array)) = (name, array) else { return None };
        let dtype = DType::from_the_journey(array.dtype)?;
        let shape = array.shape.into_iter().map(|count| count as usize).collect();
        Some(Self { name, dtype, shape, region })
    }

    fn has_no_elements(&self) -> Error {
        Kind::NoElements { name: self.name.clone(), dtype: self.dtype }.into()
    }
}

/// An array of a batch, as it lies in memory.
#[derive(Debug, Clone, Copy)]
pub struct ArrayView<'a, E> {
    shape: &'a [usize],
    elements: &'a [E],
}

impl<'a, E> ArrayView<'a, E> {
    /// How many elements in each dimension; the first is the sample.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// All elements, the last dimension first. They begin on a multiple of 64 bytes.
    pub fn as_slice(&self) -> &'a [E] {
        self.elements
    }
}

/// An array of a batch, to be changed in place.
#[derive(Debug)]
pub struct ArrayViewMut<'a, E> {
    shape: &'a [usize],
    elements: &'a mut [E],
}

impl<E> ArrayViewMut<'_, E> {
    /// How many elements in each dimension; the first is the sample.
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// All elements, the last dimension first.
    pub fn as_mut_slice(&mut self) -> &mut [E] {
        self.elements
    }
}

/// An array of a batch on its own. It owns its memory, and dereferences to a slice of its elements; what borrows from it
/// cannot outlive it. (To become a slice, truth values are looked at each time, since not every byte is one: keep the slice.)
///
/// ```compile_fail
/// # use forebay::{Batch, Error};
/// fn kept_too_long(mut batch: Batch) -> Result<&'static [f32], Error> {
///     let pixels = batch.take::<f32>("pixels")?;
///     Ok(&pixels[..]) // the compiler: `pixels` is dropped here
/// }
/// ```
pub struct OwnedArray<E> {
    shape: Vec<usize>,
    region: Region,
    elements: PhantomData<E>,
}

impl<E: Element> OwnedArray<E> {
    /// How many elements in each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// Checked when the array was taken out; and nobody else may write there.
const OVERWRITTEN: &str = "the memory of a batch was overwritten";

impl<E: Element> Deref for OwnedArray<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        E::view(self.region.bytes()).expect(OVERWRITTEN)
    }
}

impl<E: Element> DerefMut for OwnedArray<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        E::view_mut(self.region.bytes_mut()).expect(OVERWRITTEN)
    }
}

impl<E: Element> fmt::Debug for OwnedArray<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "OwnedArray({}{:?})", E::DTYPE, self.shape)
    }
}
