//! How large something was, counted by size.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Family, Label, Shown, Text};

/// What a histogram counts.
pub(crate) trait Scale: 'static {
    /// The largest of each bucket but the last, which takes all above.
    const BOUNDS: [u64; BOUNDS];
    /// How many of what is recorded are one of what is shown.
    const A_UNIT: f64;
}

const BOUNDS: usize = 19;

/// Recorded in nanoseconds: from a total, in 30 microseconds, to a stream of an hour.
pub(crate) struct Seconds;

impl Scale for Seconds {
    const BOUNDS: [u64; BOUNDS] = {
        const MICROSECONDS: [u64; BOUNDS] = [
            50,
            100,
            250,
            500,
            1_000,
            2_500,
            5_000,
            10_000,
            25_000,
            50_000,
            100_000,
            250_000,
            500_000,
            1_000_000,
            2_500_000,
            10_000_000,
            60_000_000,
            600_000_000,
            3_600_000_000,
        ];
        let (mut bounds, mut i) = ([0; BOUNDS], 0);
        while i < BOUNDS {
            bounds[i] = MICROSECONDS[i] * 1000;
            i += 1;
        }
        bounds
    };
    const A_UNIT: f64 = 1e9;
}

/// Recorded as they are.
pub(crate) struct Jobs;

impl Scale for Jobs {
    const BOUNDS: [u64; BOUNDS] =
        [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024];
    const A_UNIT: f64 = 1.0;
}

pub(crate) struct Histogram<S> {
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
    scale: PhantomData<S>,
}

impl<S> Default for Histogram<S> {
    fn default() -> Histogram<S> {
        Histogram { buckets: Default::default(), sum: AtomicU64::new(0), scale: PhantomData }
    }
}

impl<S: Scale> std::fmt::Debug for Histogram<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").field("count", &self.count()).finish()
    }
}

impl<S: Scale> Histogram<S> {
    pub fn record(&self, value: u64) {
        let bucket = S::BOUNDS.iter().position(|most| value <= *most).unwrap_or(BOUNDS);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// The largest of each bucket but the last, in units.
    pub fn bounds() -> Vec<f64> {
        S::BOUNDS.iter().map(|bound| *bound as f64 / S::A_UNIT).collect()
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Their sum, in units.
    pub fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / S::A_UNIT
    }

    /// The upper bound of each bucket, in units, with how many were recorded up to it; the last has no bound.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let counts = self.buckets.iter().scan(0, |count, bucket| {
            *count += bucket.load(Ordering::Relaxed);
            Some(*count)
        });
        Self::bounds().into_iter().chain([f64::INFINITY]).zip(counts)
    }

    fn lines(&self, text: &mut Text, labels: &str) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bound, up_to) in self.cumulative() {
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            text.line("_bucket", &format!("{labels}{comma}le=\"{bound}\""), up_to);
            count = up_to;
        }
        text.line("_sum", labels, self.sum());
        // As the last bucket has it, also where something is recorded meanwhile.
        text.line("_count", labels, count);
    }
}

impl<S: Scale> Shown for Histogram<S> {
    fn show(&self, text: &mut Text) {
        text.histogram();
        self.lines(text, "");
    }
}

impl<K: Label, S: Scale> Shown for Family<K, Histogram<S>> {
    fn show(&self, text: &mut Text) {
        text.histogram();
        for (key, histogram) in self.iter() {
            if key.is_usual() || histogram.count() > 0 {
                histogram.lines(text, &key.labels());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_whose_bound_it_does_not_pass() {
        let histogram = Histogram::<Jobs>::default();
        [0, 1, 2, 5, 1024, 1025, 9000].into_iter().for_each(|n| histogram.record(n));
        let up_to: Vec<_> = histogram.cumulative().collect();
        assert_eq!(up_to[0], (1.0, 2));
        assert_eq!(up_to[1], (2.0, 3));
        assert_eq!(up_to[4], (6.0, 4));
        assert_eq!(up_to[18], (1024.0, 5));
        assert_eq!(up_to[19], (f64::INFINITY, 7));
        assert_eq!((histogram.count(), histogram.sum()), (7, 11057.0));
    }

    #[test]
    fn bounds_rise() {
        assert!(Seconds::BOUNDS.is_sorted() && Jobs::BOUNDS.is_sorted());
    }
}
