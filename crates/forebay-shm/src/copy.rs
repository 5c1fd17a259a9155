//! Copying rows of a large batch into a slot.
//!
//! An ordinary copy first reads the lines it is about to overwrite, and pushes everything else out of the cache. A batch of
//! megabytes is read next by another core, so its lines are streamed past the cache instead.

/// Copies `source` to `target`.
///
/// # Safety
/// `target` must be valid for writes of `source.len()` bytes and not overlap `source`.
pub(crate) unsafe fn stream(source: &[u8], target: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise is the same.
    unsafe {
        x86::stream(source, target);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller promises a valid, separate target.
    unsafe {
        std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_sfence, _mm_stream_si128,
    };

    const LINE: usize = 64;
    const VECTOR: usize = 16;
    /// How far ahead the source is fetched. The hardware's own prefetcher stops at every page.
    const AHEAD: usize = 1024;

    /// # Safety
    /// As [`super::stream`].
    pub(super) unsafe fn stream(source: &[u8], target: *mut u8) {
        let head = target.align_offset(LINE).min(source.len());
        let (first, rest) = source.split_at(head);
        let lines = rest.len() / LINE * LINE;
        let (body, last) = rest.split_at(lines);
        // SAFETY: `head <= source.len()` bytes of the target are valid and separate.
        unsafe { std::ptr::copy_nonoverlapping(first.as_ptr(), target, first.len()) };
        // SAFETY: inside the target, whose `source.len()` bytes are valid.
        let target = unsafe { target.add(head) };
        for offset in (0..lines).step_by(LINE) {
            let line = &body[offset..offset + LINE];
            // SAFETY: `offset < lines`, inside the target.
            let target = unsafe { target.add(offset) };
            // SAFETY: a line is left in both; the target is aligned to one here, because `align_offset` told how far it
            // was from one (or there is no line at all).
            unsafe { stream_line(line.as_ptr(), target) };
        }
        // Streamed lines are not ordered by the release that publishes the batch; this orders them before it.
        // SAFETY: a fence without operands; every x86-64 processor has it.
        unsafe { _mm_sfence() };
        // SAFETY: inside the target.
        let target = unsafe { target.add(lines) };
        // SAFETY: the last bytes of the target.
        unsafe { std::ptr::copy_nonoverlapping(last.as_ptr(), target, last.len()) };
    }

    /// # Safety
    /// `source` must be readable and `target` writable for a line; `target` aligned to one.
    #[inline(always)]
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one line: four loads and four stores of the same proof"
    )]
    unsafe fn stream_line(source: *const u8, target: *mut u8) {
        let (source, target) = (source.cast::<__m128i>(), target.cast::<__m128i>());
        // SAFETY: four vectors make a line, readable and writable as promised; prefetching any address is allowed.
        unsafe {
            _mm_prefetch(source.cast::<i8>().wrapping_add(AHEAD), _MM_HINT_T0);
            let vectors = [0, 1, 2, 3].map(|place| _mm_loadu_si128(source.add(place)));
            for (place, vector) in vectors.into_iter().enumerate() {
                _mm_stream_si128(target.add(place), vector);
            }
        }
        const { assert!(VECTOR * 4 == LINE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_streamed_copy_is_a_copy_and_touches_nothing_else(len in 0usize..3000, from in 0usize..70, to in 0usize..70) {
            let source: Vec<u8> = (0..len + from).map(|place| (place * 31 % 251) as u8).collect();
            let mut target = vec![0xEE; len + to + 64];
            let start = target[to..to + len].as_mut_ptr();
            // SAFETY: `len` bytes of `target` from `to`; the vectors are separate.
            unsafe { stream(&source[from..], start) };
            prop_assert_eq!(&target[to..to + len], &source[from..]);
            prop_assert!(target[..to].iter().chain(&target[to + len..]).all(|byte| *byte == 0xEE));
        }
    }
}
