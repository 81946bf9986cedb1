//! What the measurements mean: which codecs are worth a thought, and what they cost a month. Pure.

/// A month of 30 days, in seconds.
pub(crate) const MONTH: f64 = 30.0 * 24.0 * 3600.0;

const GIB: f64 = (1_u64 << 30) as f64;

/// What a choice is judged by: the more of each, the better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// Plain bytes a second into the archive.
    pub(crate) speed: f64,
    /// Plain bytes for each stored one.
    pub(crate) ratio: f64,
}

impl Point {
    /// Whether nothing speaks for the other.
    fn dominates(self, other: Point) -> bool {
        self.speed >= other.speed && self.ratio >= other.ratio && self != other
    }
}

/// The indexes of the points that no other is better than in both, from the fastest to the smallest (Pareto). Of equal
/// points all are there.
pub(crate) fn front(points: &[Point]) -> Vec<usize> {
    let undominated = |nth: &usize| !points.iter().any(|other| other.dominates(points[*nth]));
    let mut front: Vec<usize> = (0..points.len()).filter(undominated).collect();
    front.sort_by(|a, b| points[*b].speed.total_cmp(&points[*a].speed));
    front
}

/// Of the points on the front the one that stores least while it is at least as fast as WAL is written.
pub(crate) fn smallest_that_keeps_up(points: &[Point], wal_rate: f64) -> Option<usize> {
    let fast_enough = front(points).into_iter().filter(|nth| points[*nth].speed >= wal_rate);
    fast_enough.max_by(|a, b| points[*a].ratio.total_cmp(&points[*b].ratio))
}

/// How much more than the smallest may be stored for less work.
pub(crate) const NEARLY: f64 = 1.05;

/// The fastest of those that keep up and store hardly more than the smallest of them.
pub(crate) fn choice(points: &[Point], wal_rate: f64) -> Option<usize> {
    let smallest = points[smallest_that_keeps_up(points, wal_rate)?];
    front(points).into_iter().find(|nth| points[*nth].ratio * NEARLY >= smallest.ratio)
}

/// What is stored of so many bytes of WAL a second in a month, in GiB.
pub(crate) fn gib_a_month(wal_rate: f64, ratio: f64) -> f64 {
    wal_rate * MONTH / ratio / GIB
}

/// How many segments are filled in a month; each is stored with one PUT.
pub(crate) fn puts_a_month(wal_rate: u64, segment_bytes: u64) -> u64 {
    (wal_rate as f64 * MONTH / segment_bytes.max(1) as f64).ceil() as u64
}

/// How long it takes to store what was held up for so long, in the same unit, while more is written; `None` if for ever.
pub(crate) fn catch_up(wal_rate: f64, speed: f64, held_up: f64) -> Option<f64> {
    (speed > wal_rate).then(|| held_up * wal_rate / (speed - wal_rate))
}

/// Plain bytes for each stored one over all of the reference's objects: of those that there was no time for, what the
/// reference stored, in the proportion of those that both have seen. Each object is its plain and its stored bytes.
pub(crate) fn ratio(seen: &[(u64, u64)], reference: &[(u64, u64)]) -> f64 {
    let sum = |objects: &[(u64, u64)]| {
        let add = |(plain, stored), object: &(u64, u64)| (plain + object.0, stored + object.1);
        let (plain, stored) = objects.iter().fold((0, 0), add);
        (plain as f64, stored.max(1) as f64)
    };
    let (plain, stored) = sum(seen);
    if seen.len() >= reference.len() {
        return plain / stored;
    }
    let (all_plain, all_stored) = sum(reference);
    let (_, also_seen) = sum(&reference[..seen.len()]);
    all_plain / (stored * all_stored / also_seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(pairs: &[(f64, f64)]) -> Vec<Point> {
        pairs.iter().map(|(speed, ratio)| Point { speed: *speed, ratio: *ratio }).collect()
    }

    #[test]
    fn the_front_of_a_few_codecs() {
        let points =
            points(&[(900.0, 1.0), (500.0, 2.0), (300.0, 3.0), (100.0, 2.9), (3.0, 4.0), (3.0, 3.5)]);
        assert_eq!(front(&points), [0, 1, 2, 4]);
        assert_eq!(front(&points[..1]), [0]);
        assert_eq!(front(&[]), Vec::<usize>::new());
        assert_eq!(front(&[points[0], points[0]]), [0, 1], "equals do not dominate each other");
    }

    /// Few distinct values, so that many points share one.
    fn made_up(state: &mut u64, count: usize) -> Vec<Point> {
        let mut next = || {
            *state ^= *state << 13;
            *state ^= *state >> 7;
            *state ^= *state << 17;
            (*state >> 20) % 12
        };
        (0..count).map(|_| Point { speed: next() as f64, ratio: next() as f64 }).collect()
    }

    #[test]
    fn no_point_of_a_front_is_dominated_and_every_other_is() {
        let mut state = 0x9E37_79B9_7F4A_7C15;
        for round in 0..2000 {
            let points = made_up(&mut state, round % 30);
            let front = front(&points);
            for (nth, point) in points.iter().enumerate() {
                let dominated = front.iter().any(|other| points[*other].dominates(*point));
                assert_eq!(front.contains(&nth), !dominated, "{nth} of {points:?}");
            }
            let falls = |pair: &[usize]| points[pair[0]].speed >= points[pair[1]].speed;
            let grows = |pair: &[usize]| points[pair[0]].ratio <= points[pair[1]].ratio;
            assert!(front.windows(2).all(|pair| falls(pair) && grows(pair)), "{points:?}");
        }
    }

    #[test]
    fn the_smallest_that_keeps_up() {
        let points = points(&[(900.0, 1.0), (500.0, 2.0), (300.0, 3.0), (100.0, 2.9), (3.0, 4.0)]);
        for (rate, choice) in
            [(1.0, Some(4)), (3.0, Some(4)), (50.0, Some(2)), (400.0, Some(1)), (901.0, None)]
        {
            assert_eq!(smallest_that_keeps_up(&points, rate), choice, "{rate}");
        }
    }

    #[test]
    fn hardly_more_is_fine_for_less_work() {
        let points =
            points(&[(900.0, 1.0), (500.0, 2.0), (300.0, 4.9), (100.0, 4.95), (30.0, 5.0), (3.0, 9.0)]);
        for (rate, expected) in
            [(1.0, Some(5)), (10.0, Some(2)), (200.0, Some(2)), (400.0, Some(1)), (901.0, None)]
        {
            assert_eq!(choice(&points, rate), expected, "{rate}");
        }
    }

    #[test]
    fn a_month() {
        assert_eq!(gib_a_month((1 << 20) as f64, 1.0), 2531.25);
        assert_eq!(gib_a_month((1 << 20) as f64, 2.0), 1265.625);
        assert_eq!(puts_a_month(16 << 20, 16 << 20), 30 * 24 * 3600);
        assert_eq!(puts_a_month(1, 16 << 20), 1);
        assert_eq!(puts_a_month(0, 16 << 20), 0);
    }

    #[test]
    fn catching_up() {
        assert_eq!(catch_up(10.0, 20.0, 60.0), Some(60.0));
        assert_eq!(catch_up(10.0, 110.0, 60.0), Some(6.0));
        assert_eq!(catch_up(10.0, 10.0, 60.0), None);
        assert_eq!(catch_up(10.0, 5.0, 60.0), None);
    }

    #[test]
    fn ratios_are_of_the_same_objects() {
        let reference = [(100, 50), (100, 10), (200, 20)];
        assert_eq!(ratio(&reference, &reference), 5.0);
        assert_eq!(ratio(&[(100, 25), (100, 5), (200, 10)], &reference), 10.0);
        // The first object alone would be 4; it compresses worse than the others.
        assert_eq!(ratio(&[(100, 25)], &reference), 10.0);
        assert_eq!(ratio(&[(100, 0)], &[(100, 0)]), 100.0);
    }
}
