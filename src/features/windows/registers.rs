//! HyperLogLog: registers that tell how many different hashes they have noted, with a standard error of
//! 3.3 %, whatever the order and however often.

/// Bits of a hash that choose its register.
const REGISTER_BITS: u32 = 10;
pub const REGISTERS: usize = 1 << REGISTER_BITS;

/// The highest value of a register.
pub const MAX_RANK: u8 = (64 - REGISTER_BITS + 1) as u8;

pub type Registers = [u8; REGISTERS];

/// Of these hashes.
pub fn registers_of(hashes: &[u64]) -> Box<Registers> {
    let mut registers = Box::new([0; REGISTERS]);
    hashes.iter().for_each(|hash| note(&mut registers, *hash));
    registers
}

/// The register keeps the longest run of leading zeros, plus one, of what is left of a hash.
pub fn note(registers: &mut Registers, hash: u64) {
    let index = (hash >> (64 - REGISTER_BITS)) as usize;
    // The bit behind the hash ends a run of nothing but zeros.
    let rest = (hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1));
    let rank = rest.leading_zeros() as u8 + 1;
    registers[index] = registers[index].max(rank);
}

/// Adds the hashes that other registers have noted.
pub fn raise(ours: &mut Registers, theirs: &Registers) {
    for (our, their) in ours.iter_mut().zip(theirs) {
        *our = (*our).max(*their);
    }
}

/// How many different hashes were noted, about: the estimator of Ertl (2017), which is good from none to all values without corrections.
pub fn estimate(registers: &Registers) -> u64 {
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
