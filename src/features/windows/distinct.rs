//! How many different values there were.
//!
//! A tile keeps the 64-bit hashes of up to 64 values; above that it becomes a HyperLogLog of 1,024
//! registers. A window whose tiles are all hashes, at most 1,024 of them, is counted exactly;
//! otherwise the count is an estimate with a standard error of 3.3 %. Either way it depends only on
//! which values there were, not on their order or repetition.

/// The most hashes a tile keeps one by one.
pub const MAX_HASHES: usize = 64;

/// The most hashes of one window that are counted one by one.
const MAX_COUNTED: usize = 1024;

/// Bits of a hash that choose its register.
const REGISTER_BITS: u32 = 10;
pub const REGISTERS: usize = 1 << REGISTER_BITS;

/// The highest value of a register.
pub const MAX_RANK: u8 = (64 - REGISTER_BITS + 1) as u8;

#[derive(Clone, Debug, PartialEq)]
pub enum Distinct {
    /// Sorted.
    Few(Vec<u64>),
    Many(Box<[u8; REGISTERS]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Distinct::Few(Vec::new())
    }
}

impl Distinct {
    pub fn add(&mut self, hash: u64) {
        match self {
            Distinct::Few(hashes) => {
                if let Err(position) = hashes.binary_search(&hash) {
                    if hashes.len() == hashes.capacity() {
                        hashes.reserve_exact(1 + hashes.len() / 2);
                    }
                    hashes.insert(position, hash);
                    if hashes.len() > MAX_HASHES {
                        *self = Distinct::Many(registers_of(hashes));
                    }
                }
            }
            Distinct::Many(registers) => note(registers, hash),
        }
    }

    pub fn merge(&mut self, other: &Distinct) {
        match other {
            Distinct::Few(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            Distinct::Many(theirs) => {
                if let Distinct::Few(hashes) = self {
                    *self = Distinct::Many(registers_of(hashes));
                }
                if let Distinct::Many(ours) = self {
                    raise(ours, theirs);
                }
            }
        }
    }

    pub fn heap_bytes(&self) -> usize {
        match self {
            Distinct::Few(hashes) => hashes.capacity() * size_of::<u64>(),
            Distinct::Many(_) => REGISTERS,
        }
    }
}

/// How many different values there were in all of `tiles`.
pub fn count<'a>(tiles: impl Iterator<Item = &'a Distinct> + Clone) -> u64 {
    let mut hashes: Vec<u64> = Vec::new();
    let mut few = true;
    for tile in tiles.clone() {
        match tile {
            Distinct::Few(more) if hashes.len() + more.len() <= MAX_COUNTED => {
                hashes.extend_from_slice(more);
            }
            _ => few = false,
        }
        if !few {
            break;
        }
    }
    if few {
        hashes.sort_unstable();
        hashes.dedup();
        return hashes.len() as u64;
    }
    let mut registers = [0; REGISTERS];
    for tile in tiles {
        match tile {
            Distinct::Few(hashes) => hashes.iter().for_each(|hash| note(&mut registers, *hash)),
            Distinct::Many(theirs) => raise(&mut registers, theirs),
        }
    }
    estimate(&registers)
}

fn registers_of(hashes: &[u64]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    hashes.iter().for_each(|hash| note(&mut registers, *hash));
    registers
}

/// The register keeps the longest run of leading zeros, plus one, of what is left of a hash.
fn note(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> (64 - REGISTER_BITS)) as usize;
    // The bit behind the hash ends a run of nothing but zeros.
    let rest = (hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1));
    let rank = rest.leading_zeros() as u8 + 1;
    registers[index] = registers[index].max(rank);
}

fn raise(ours: &mut [u8; REGISTERS], theirs: &[u8; REGISTERS]) {
    for (our, their) in ours.iter_mut().zip(theirs) {
        *our = (*our).max(*their);
    }
}

/// The estimator of Ertl (2017), which is good from none to all values without corrections.
fn estimate(registers: &[u8; REGISTERS]) -> u64 {
    let mut histogram = [0u32; MAX_RANK as usize + 1];
    for rank in registers {
        histogram[usize::from((*rank).min(MAX_RANK))] += 1;
    }
    let total = REGISTERS as f64;
    let last = usize::from(MAX_RANK);
    let mut sum = total * tau(1.0 - f64::from(histogram[last]) / total);
    for rank in (1..last).rev() {
        sum = 0.5 * (sum + f64::from(histogram[rank]));
    }
    sum += total * sigma(f64::from(histogram[0]) / total);
    (total * total / (2.0 * std::f64::consts::LN_2 * sum)).round() as u64
}

/// x + the sum over k of x^(2^k) * 2^(k-1).
fn sigma(x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut weight, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let next = sum + power * weight;
        weight += weight;
        if next <= sum {
            return sum;
        }
        sum = next;
    }
}

/// (1 - x - the sum over k of (1 - x^(2^-k))^2 * 2^-k) / 3.
fn tau(x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        weight *= 0.5;
        let next = sum - (1.0 - root) * (1.0 - root) * weight;
        if next >= sum {
            return sum / 3.0;
        }
        sum = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(value: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&value.to_le_bytes())
    }

    fn of(values: impl Iterator<Item = u64>) -> Distinct {
        let mut distinct = Distinct::default();
        values.for_each(|value| distinct.add(hash(value)));
        distinct
    }

    #[test]
    fn few_values_are_counted_exactly_over_many_tiles() {
        let tiles: Vec<Distinct> = (0..20).map(|tile| of(tile * 30..tile * 30 + 50)).collect();
        assert_eq!(count(tiles.iter()), 19 * 30 + 50);
        assert_eq!(count([].iter()), 0);
    }

    #[test]
    fn many_values_are_estimated_within_a_tenth() {
        for number in [65, 100, 1_000, 10_000, 1_000_000] {
            let estimated = count([of(0..number)].iter()) as f64;
            let error = (estimated / number as f64 - 1.0).abs();
            assert!(error < 0.1, "{number}: {estimated}");
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let forward = of((0..500).chain(0..500));
        assert_eq!(forward, of((0..500).rev()));
        let mut halves = of(0..300);
        halves.merge(&of(200..500));
        assert_eq!(halves, forward);
        let mut few = of(0..10);
        few.merge(&of(5..500));
        assert_eq!(few, forward);
    }
}
