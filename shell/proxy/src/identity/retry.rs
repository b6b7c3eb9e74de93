//! When a certificate that was not renewed is asked for again.
use crate::random;
use std::time::Duration;

const MIN: Duration = Duration::from_millis(200);
const MAX: Duration = Duration::from_secs(30);

/// The pauses between tries: longer and longer, but never over a quarter of what is left to the certificate that there is.
#[derive(Debug)]
pub struct Retry {
    pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { pause: MIN }
    }
}

impl Retry {
    /// How long to wait before the next try, when the certificate is valid for `left` yet; `None`: it is not. Drawn from the upper half of the
    /// pause: the many whose control plane was away do not come back all at once.
    pub fn pause(&mut self, left: Option<Duration>) -> Duration {
        let pause = left.map_or(self.pause, |left| self.pause.min((left / 4).max(MIN)));
        self.pause = (pause * 2).min(MAX);
        pause - pause / 2 * (random::u32() % 1_000) / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds of the pauses, in milliseconds, of six tries one after the other.
    fn pauses(left_s: Option<u64>) -> [u128; 6] {
        let mut retry = Retry::default();
        [(); 6].map(|()| {
            let most =
                left_s.map_or(retry.pause, |left_s| retry.pause.min(Duration::from_millis(left_s * 250).max(MIN)));
            let pause = retry.pause(left_s.map(Duration::from_secs));
            assert!(pause <= most && pause >= most / 2, "{pause:?} of {most:?}");
            most.as_millis()
        })
    }

    #[test]
    fn longer_and_longer_within_what_is_left() {
        assert_eq!(pauses(None), [200, 400, 800, 1_600, 3_200, 6_400]);
        assert_eq!(pauses(Some(86_400)), pauses(None));
        assert_eq!(pauses(Some(4)), [200, 400, 800, 1_000, 1_000, 1_000], "no try is far from the end");
        assert_eq!(pauses(Some(0)), [200; 6], "in its last second");
        let mut long = Retry::default();
        assert!((0..20).map(|_| long.pause(None)).all(|pause| pause <= MAX));
    }
}
