//! What is in a slot: the description of a batch, in bytes that travel with it.
//!
//! A batch is a tree of [`Value`]s. Its leaves are small values, written into the description itself, and
//! arrays, of which the description holds type, shape and place ([`Span`]). What a front cannot describe travels as
//! [`Value::Opaque`]: bytes only that front understands, with buffers beside them.
//!
//! The bytes come from another process. [`decode`] checks every count and size before it allocates, and limits depth, so
//! that nonsense is an error and nothing else.

use forebay_shm::Span;

use crate::EngineError;

/// Containers nested deeper than this are left to [`Value::Opaque`].
pub const MAX_DEPTH: usize = 32;
/// The most dimensions an array can have (as in NumPy).
pub const MAX_DIMENSIONS: usize = 64;

/// An element type, numbered as in DLPack: its kind and its width in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DType {
    /// DLPack's `DLDataTypeCode`.
    pub code: u8,
    /// Bits of one element.
    pub bits: u8,
}

impl DType {
    /// Truth values of one byte.
    pub const BOOL: Self = Self { code: 6, bits: 8 };
    /// Unsigned bytes.
    pub const U8: Self = Self { code: 1, bits: 8 };
    /// Signed integers of 64 bits.
    pub const I64: Self = Self { code: 0, bits: 64 };
    /// Floats of 32 bits.
    pub const F32: Self = Self { code: 2, bits: 32 };
    /// Floats of 64 bits.
    pub const F64: Self = Self { code: 2, bits: 64 };

    /// Bytes of one element; `None` for types of less than a byte.
    pub fn bytes(self) -> Option<u64> {
        (self.bits > 0 && self.bits.is_multiple_of(8)).then_some(u64::from(self.bits) / 8)
    }
}

/// An array somewhere in the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// What the front makes of it; the engine does not care.
    pub flavour: u8,
    /// Element type.
    pub dtype: DType,
    /// Elements in each dimension.
    pub shape: Vec<u64>,
    /// Elements from one to the next in each dimension; `None` when the array is contiguous, last dimension first.
    pub strides: Option<Vec<u64>>,
    /// Where its bytes are.
    pub span: Span,
}

impl Array {
    /// Bytes from the first element to the end of the last one, or `None` when that overflows.
    pub fn extent(&self) -> Option<u64> {
        extent(self.dtype, &self.shape, self.strides.as_deref())
    }
}

/// Bytes from the first element of an array to the end of its last one, or `None` when that overflows or the element
/// type has no whole bytes.
pub fn extent(dtype: DType, shape: &[u64], strides: Option<&[u64]>) -> Option<u64> {
    let size = dtype.bytes()?;
    if shape.contains(&0) {
        return Some(0);
    }
    match strides {
        None => shape.iter().try_fold(size, |bytes, count| bytes.checked_mul(*count)),
        Some(strides) => {
            let steps = shape.iter().zip(strides).try_fold(0u64, |last, (count, stride)| {
                last.checked_add(count.checked_sub(1)?.checked_mul(*stride)?)
            });
            steps?.checked_add(1)?.checked_mul(size)
        }
    }
}

/// A batch, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// An array.
    Array(Array),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// Pairs of key and value, in order.
    Map(Vec<(Value, Value)>),
    /// A tuple of a class of the front's, which the front names in `class`.
    Record {
        /// The front's name of the class.
        class: Vec<u8>,
        /// The fields, in order.
        fields: Vec<Value>,
    },
    /// Bytes that only the front understands, and buffers they refer to.
    Opaque {
        /// The bytes.
        body: Span,
        /// The buffers.
        buffers: Vec<Span>,
    },
}

impl Value {
    /// The places of all bytes outside the description, in the order of a depth-first walk: an opaque value's body comes
    /// before its buffers.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        self.collect_spans(&mut spans);
        spans
    }

    fn collect_spans(&self, spans: &mut Vec<Span>) {
        match self {
            Self::Array(array) => spans.push(array.span),
            Self::Opaque { body, buffers } => {
                spans.push(*body);
                spans.extend(buffers);
            }
            Self::List(values) | Self::Tuple(values) | Self::Record { fields: values, .. } => {
                values.iter().for_each(|value| value.collect_spans(spans));
            }
            Self::Map(pairs) => pairs.iter().for_each(|(key, value)| {
                key.collect_spans(spans);
                value.collect_spans(spans);
            }),
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Text(_) | Self::Bytes(_) => {}
        }
    }
}

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
const BYTES: u8 = 6;
const ARRAY: u8 = 7;
const STRIDED_ARRAY: u8 = 8;
const LIST: u8 = 9;
const TUPLE: u8 = 10;
const MAP: u8 = 11;
const RECORD: u8 = 12;
const OPAQUE: u8 = 13;

/// Appends the description of `value` to `out`.
pub fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::None => out.push(NONE),
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Int(value) => tagged(out, INT, &value.to_le_bytes()),
        Value::Float(value) => tagged(out, FLOAT, &value.to_le_bytes()),
        Value::Text(text) => counted(out, TEXT, text.as_bytes()),
        Value::Bytes(bytes) => counted(out, BYTES, bytes),
        Value::Array(array) => encode_array(array, out),
        Value::List(values) => encode_all(LIST, values, out),
        Value::Tuple(values) => encode_all(TUPLE, values, out),
        Value::Map(pairs) => {
            tagged(out, MAP, &(pairs.len() as u64).to_le_bytes());
            for (key, value) in pairs {
                encode(key, out);
                encode(value, out);
            }
        }
        Value::Record { class, fields } => {
            counted(out, RECORD, class);
            out.extend_from_slice(&(fields.len() as u64).to_le_bytes());
            fields.iter().for_each(|field| encode(field, out));
        }
        Value::Opaque { body, buffers } => {
            out.push(OPAQUE);
            encode_span(*body, out);
            out.extend_from_slice(&(buffers.len() as u64).to_le_bytes());
            buffers.iter().for_each(|buffer| encode_span(*buffer, out));
        }
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn counted(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    tagged(out, tag, &(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn encode_all(tag: u8, values: &[Value], out: &mut Vec<u8>) {
    tagged(out, tag, &(values.len() as u64).to_le_bytes());
    values.iter().for_each(|value| encode(value, out));
}

fn encode_array(array: &Array, out: &mut Vec<u8>) {
    let tag = if array.strides.is_some() { STRIDED_ARRAY } else { ARRAY };
    out.extend_from_slice(&[tag, array.flavour, array.dtype.code, array.dtype.bits, array.shape.len() as u8]);
    for number in array.shape.iter().chain(array.strides.iter().flatten()) {
        out.extend_from_slice(&number.to_le_bytes());
    }
    encode_span(array.span, out);
}

fn encode_span(span: Span, out: &mut Vec<u8>) {
    out.extend_from_slice(&span.offset.to_le_bytes());
    out.extend_from_slice(&span.len.to_le_bytes());
}

/// Reads a description. The whole of `bytes` must be one value.
///
/// # Errors
/// [`EngineError::Layout`] for anything [`encode`] would not write.
pub fn decode(bytes: &[u8]) -> Result<Value, EngineError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(EngineError::Layout("bytes are left over")) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, EngineError>;

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Read<Value> {
        if depth > MAX_DEPTH {
            return Err(EngineError::Layout("it is nested too deeply"));
        }
        Ok(match self.byte()? {
            NONE => Value::None,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(i64::from_le_bytes(self.array()?)),
            FLOAT => Value::Float(f64::from_le_bytes(self.array()?)),
            TEXT => Value::Text(self.text()?),
            BYTES => Value::Bytes(self.counted()?.to_vec()),
            ARRAY => Value::Array(self.array_value(false)?),
            STRIDED_ARRAY => Value::Array(self.array_value(true)?),
            LIST => Value::List(self.values(depth)?),
            TUPLE => Value::Tuple(self.values(depth)?),
            MAP => {
                let count = self.count(2)?;
                Value::Map(
                    (0..count)
                        .map(|_| Ok((self.value(depth + 1)?, self.value(depth + 1)?)))
                        .collect::<Read<_>>()?,
                )
            }
            RECORD => Value::Record { class: self.counted()?.to_vec(), fields: self.values(depth)? },
            OPAQUE => {
                let body = self.span()?;
                let count = self.count(16)?;
                Value::Opaque { body, buffers: (0..count).map(|_| self.span()).collect::<Read<_>>()? }
            }
            _ => return Err(EngineError::Layout("it has a value of an unknown kind")),
        })
    }

    fn values(&mut self, depth: usize) -> Read<Vec<Value>> {
        let count = self.count(1)?;
        (0..count).map(|_| self.value(depth + 1)).collect()
    }

    fn array_value(&mut self, strided: bool) -> Read<Array> {
        let [flavour, code, bits, dimensions] = self.array()?;
        if usize::from(dimensions) > MAX_DIMENSIONS {
            return Err(EngineError::Layout("an array has too many dimensions"));
        }
        let shape = self.numbers(dimensions)?;
        let strides = if strided { Some(self.numbers(dimensions)?) } else { None };
        let array = Array { flavour, dtype: DType { code, bits }, shape, strides, span: self.span()? };
        match array.extent() {
            Some(extent) if extent <= array.span.len => Ok(array),
            _ => Err(EngineError::Layout("an array is larger than its bytes")),
        }
    }

    fn numbers(&mut self, count: u8) -> Read<Vec<u64>> {
        (0..count).map(|_| self.number()).collect()
    }

    fn text(&mut self) -> Read<String> {
        let bytes = self.counted()?.to_vec();
        String::from_utf8(bytes).map_err(|_| EngineError::Layout("a text is not UTF-8"))
    }

    fn counted(&mut self) -> Read<&'a [u8]> {
        let count = self.count(1)?;
        self.bytes(count)
    }

    /// A count of things of at least `size` bytes each: no more than can be there.
    fn count(&mut self, size: usize) -> Read<usize> {
        let count = self.number()?;
        let fits = usize::try_from(count).ok().filter(|count| *count <= self.rest.len() / size);
        fits.ok_or(EngineError::Layout("a count is larger than the rest"))
    }

    fn span(&mut self) -> Read<Span> {
        Ok(Span { offset: self.number()?, len: self.number()? })
    }

    fn number(&mut self) -> Read<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn byte(&mut self) -> Read<u8> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(EngineError::Layout("it ends too early"))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn bytes(&mut self, count: usize) -> Read<&'a [u8]> {
        let (bytes, rest) =
            self.rest.split_at_checked(count).ok_or(EngineError::Layout("it ends too early"))?;
        self.rest = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Span> {
        (0..u64::MAX / 2, 0..u64::MAX / 2).prop_map(|(offset, len)| Span { offset, len })
    }

    fn arrays() -> impl Strategy<Value = Array> {
        let shape = prop::collection::vec(0u64..5, 0..4);
        (any::<u8>(), shape, any::<bool>(), 0..u64::MAX / 2).prop_map(|(flavour, shape, strided, offset)| {
            let strides = strided.then(|| shape.iter().map(|count| count % 3).collect());
            let mut array =
                Array { flavour, dtype: DType::F32, shape, strides, span: Span { offset, len: 0 } };
            array.span.len = array.extent().unwrap();
            array
        })
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::None),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            arrays().prop_map(Value::Array),
            (spans(), prop::collection::vec(spans(), 0..3))
                .prop_map(|(body, buffers)| Value::Opaque { body, buffers }),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let some = prop::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                some.clone().prop_map(Value::List),
                some.clone().prop_map(Value::Tuple),
                prop::collection::vec((inner.clone(), inner), 0..3).prop_map(Value::Map),
                (any::<Vec<u8>>(), some).prop_map(|(class, fields)| Value::Record { class, fields }),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_description_reads_back_as_what_was_written(value in values()) {
            let mut bytes = Vec::new();
            encode(&value, &mut bytes);
            prop_assert_eq!(decode(&bytes).unwrap(), value);
        }

        #[test]
        fn a_truncated_description_is_an_error(value in values(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&value, &mut bytes);
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(0u8..16, 0..64)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn an_array_never_claims_more_than_its_bytes(array in arrays(), missing in 1u64..9) {
            let extent = array.extent().unwrap();
            prop_assume!(extent >= missing);
            let short = Array { span: Span { len: extent - missing, ..array.span }, ..array };
            let mut bytes = Vec::new();
            encode(&Value::Array(short), &mut bytes);
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn nesting_is_limited() {
        let mut bytes = Vec::new();
        for _ in 0..10_000 {
            bytes.extend_from_slice(&[LIST, 1, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes.push(NONE);
        assert!(decode(&bytes).is_err());
    }
}
