//! Broadcasting: which elements of several inputs meet, and loops over them.
//!
//! Shapes are aligned at their last dimensions, and a dimension of size 1 is repeated, as in numpy.
//! Neighbouring dimensions through which all inputs move alike are merged, so that equal shapes, a
//! scalar, a row and a column become one or two loops; the innermost of them goes over slices and
//! leaves nothing to the element but the operation.

use smallvec::SmallVec;

use crate::operator::OpError;
use crate::tensor::Shape;

/// One loop: its length and how far each input moves from one turn to the next.
#[derive(Debug, Clone, Copy)]
struct Loop<const N: usize> {
    size: usize,
    steps: [usize; N],
}

/// How `N` inputs are broadcast to one shape.
#[derive(Debug)]
pub(crate) struct Broadcast<const N: usize> {
    /// The shape of the result.
    pub shape: Shape,
    /// The number of its elements.
    pub elements: usize,
    /// Outermost first; none has size 1.
    loops: SmallVec<[Loop<N>; 4]>,
}

/// Elements of the result that lie side by side: where each input begins, and whether it moves on
/// with them or stays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<const N: usize> {
    pub length: usize,
    pub starts: [usize; N],
    pub moves: [bool; N],
}

impl<const N: usize> Broadcast<N> {
    /// Verifies that the shapes fit each other.
    pub fn new(shapes: [&[usize]; N]) -> Result<Broadcast<N>, OpError> {
        let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
        let mut shape = Shape::from_elem(1, rank);
        for input in shapes {
            let offset = rank - input.len();
            for (size, found) in shape[offset..].iter_mut().zip(input) {
                if *size == 1 {
                    *size = *found;
                } else if *found != 1 && *found != *size {
                    return Err(OpError::Value(format!(
                        "the shapes {shapes:?} cannot be broadcast to one"
                    )));
                }
            }
        }
        let elements = product(&shape)?;
        let mut loops: SmallVec<[Loop<N>; 4]> = SmallVec::new();
        let mut strides = [1; N];
        // From the innermost dimension outwards; turned round below.
        for dimension in (0..rank).rev() {
            let size = shape[dimension];
            if size == 1 || elements == 0 {
                continue;
            }
            let mut steps = [0; N];
            for (input, step) in steps.iter_mut().enumerate() {
                let place = (dimension + shapes[input].len()).checked_sub(rank);
                let own = place.map_or(1, |place| shapes[input][place]);
                if own != 1 {
                    *step = strides[input];
                    strides[input] *= own;
                }
            }
            match loops.last_mut() {
                Some(inner) if continues(inner, &steps) => inner.size *= size,
                _ => loops.push(Loop { size, steps }),
            }
        }
        loops.reverse();
        Ok(Broadcast {
            shape,
            elements,
            loops,
        })
    }

    /// Calls `work` for each run of the result, in its order.
    pub fn for_each_run(&self, mut work: impl FnMut(Run<N>)) {
        if self.elements == 0 {
            return;
        }
        let Some((inner, outer)) = self.loops.split_last() else {
            return work(Run {
                length: 1,
                starts: [0; N],
                moves: [true; N],
            });
        };
        let moves = inner.steps.map(|step| step != 0);
        let mut starts = [0; N];
        let mut counters: SmallVec<[usize; 4]> = SmallVec::from_elem(0, outer.len());
        let mut at = 0;
        loop {
            work(Run {
                length: inner.size,
                starts,
                moves,
            });
            at += inner.size;
            if at >= self.elements {
                return;
            }
            for (counter, each) in counters.iter_mut().zip(outer).rev() {
                *counter += 1;
                if *counter < each.size {
                    for (start, step) in starts.iter_mut().zip(each.steps) {
                        *start += step;
                    }
                    break;
                }
                *counter = 0;
                for (start, step) in starts.iter_mut().zip(each.steps) {
                    *start -= step * (each.size - 1);
                }
            }
        }
    }
}

/// Whether a dimension around the loop goes on where the loop ends, for every input.
fn continues<const N: usize>(inner: &Loop<N>, outer: &[usize; N]) -> bool {
    inner
        .steps
        .iter()
        .zip(outer)
        .all(|(inner_step, outer_step)| inner_step * inner.size == *outer_step)
}

/// The number of elements of a shape.
pub(crate) fn product(shape: &[usize]) -> Result<usize, OpError> {
    // A size of zero makes the product zero wherever it stands.
    if shape.contains(&0) {
        return Ok(0);
    }
    let mut elements = 1usize;
    for size in shape {
        elements = elements.checked_mul(*size).ok_or_else(|| {
            OpError::Value(format!(
                "the shape {shape:?} has too many elements to count"
            ))
        })?;
    }
    Ok(elements)
}

/// Applies `operation` to the pairs of elements that meet.
pub(crate) fn binary<A, B, To>(
    layout: &Broadcast<2>,
    left: &[A],
    right: &[B],
    operation: impl Fn(&A, &B) -> To,
) -> Vec<To> {
    let mut results = Vec::with_capacity(layout.elements);
    layout.for_each_run(|run| {
        let [left_start, right_start] = run.starts;
        match run.moves {
            [true, true] => {
                let lefts = &left[left_start..left_start + run.length];
                let rights = &right[right_start..right_start + run.length];
                results.extend(lefts.iter().zip(rights).map(|(a, b)| operation(a, b)));
            }
            [true, false] => {
                let lefts = &left[left_start..left_start + run.length];
                let b = &right[right_start];
                results.extend(lefts.iter().map(|a| operation(a, b)));
            }
            _ => {
                let a = &left[left_start];
                let rights = &right[right_start..right_start + run.length];
                results.extend(rights.iter().map(|b| operation(a, b)));
            }
        }
    });
    results
}

/// As [`binary`], with the results in the place of the left elements, which have the shape of the
/// result.
pub(crate) fn binary_in_place<A: Copy, B: Copy>(
    layout: &Broadcast<2>,
    left: &mut [A],
    right: &[B],
    operation: impl Fn(A, B) -> A,
) {
    layout.for_each_run(|run| {
        let [left_start, right_start] = run.starts;
        let lefts = &mut left[left_start..left_start + run.length];
        if run.moves[1] {
            let rights = &right[right_start..right_start + run.length];
            for (a, b) in lefts.iter_mut().zip(rights) {
                *a = operation(*a, *b);
            }
        } else {
            let b = right[right_start];
            for a in lefts {
                *a = operation(*a, b);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(left: &[usize], right: &[usize]) -> Result<(Vec<usize>, Vec<i64>), OpError> {
        let layout = Broadcast::new([left, right])?;
        let lefts: Vec<i64> = (0..product(left)? as i64).collect();
        let rights: Vec<i64> = (0..product(right)? as i64).map(|b| 100 * b).collect();
        let results = binary(&layout, &lefts, &rights, |a, b| a + b);
        Ok((layout.shape.to_vec(), results))
    }

    #[test]
    fn shapes_meet_at_their_last_dimensions() {
        let (shape, results) = differences(&[2, 3], &[3]).unwrap();
        assert_eq!(shape, [2, 3]);
        assert_eq!(results, [0, 101, 202, 3, 104, 205]);
        let (shape, results) = differences(&[2, 1], &[3]).unwrap();
        assert_eq!(shape, [2, 3]);
        assert_eq!(results, [0, 100, 200, 1, 101, 201]);
        let (shape, results) = differences(&[2, 1, 2], &[1, 2, 1]).unwrap();
        assert_eq!(shape, [2, 2, 2]);
        assert_eq!(results, [0, 1, 100, 101, 2, 3, 102, 103]);
        assert!(differences(&[2, 3], &[2]).is_err());
    }

    #[test]
    fn scalars_and_empty_tensors_are_shapes_like_others() {
        assert_eq!(differences(&[], &[]).unwrap(), (vec![], vec![0]));
        assert_eq!(differences(&[1, 1], &[]).unwrap(), (vec![1, 1], vec![0]));
        assert_eq!(differences(&[0, 3], &[3]).unwrap(), (vec![0, 3], vec![]));
        assert_eq!(differences(&[0], &[1]).unwrap(), (vec![0], vec![]));
        assert!(differences(&[0], &[2]).is_err());
    }

    #[test]
    fn sizes_whose_product_overflows_are_refused() {
        let huge = 1usize << 40;
        let error = Broadcast::new([&[huge, 1], &[1, huge]]).unwrap_err();
        assert!(matches!(error, OpError::Value(_)));
    }
}
