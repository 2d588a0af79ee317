//! [`Windows`]: `Conv`, `ConvTranspose` and pooling, verified.

use super::needs::{Needs, Shapes, filled, packed, shape_of, total};
use crate::node::Node;
use crate::operator::operations;

/// Dimensions beside rows and channels: a series has one, a picture two.
const MOST_DIMENSIONS: usize = 3;
/// The largest stride, dilation, padding or window, so that no product of two of them overflows.
const LARGEST: i64 = i32::MAX as i64;
/// What packed matrices are filled up to on the side of the windows.
const PANEL_COLUMNS: u64 = 32;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Convolution,
    Transposed,
    Pool,
}

#[derive(Debug, PartialEq)]
enum Padding {
    /// Before each dimension, then after each.
    Given(Vec<usize>),
    /// As much as gives one window for each stride of the input.
    Same,
}

/// What the node says.
#[derive(Debug)]
pub(super) struct Windows {
    kind: Kind,
    /// Required of pools; that of a convolution follows from its weights.
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    padding: Option<Padding>,
    groups: usize,
    /// Whether a window may begin inside the input and end outside.
    round_up: bool,
    output_padding: Option<Vec<usize>>,
    output_shape: Option<Vec<usize>>,
}

/// The windows along one dimension.
struct Axis {
    /// Elements of the output.
    output: usize,
    /// Elements of the input with its padding.
    padded: u64,
    /// Kinds of windows: those inside, and those that overlap an edge by this or that much.
    regions: usize,
}

impl Windows {
    pub fn read(node: &Node<'_>) -> Result<Windows, String> {
        let kind = match node.operator() {
            "Conv" => Kind::Convolution,
            "ConvTranspose" => Kind::Transposed,
            _ => Kind::Pool,
        };
        let mut windows = Windows {
            kind,
            kernel: sizes(node, "kernel_shape", 1, 1)?,
            strides: sizes(node, "strides", 1, 1)?,
            dilations: sizes(node, "dilations", 1, 1)?,
            padding: padding(node)?,
            groups: 1,
            round_up: false,
            output_padding: None,
            output_shape: None,
        };
        if kind == Kind::Pool {
            node.expect_inputs(1, 1)?;
            windows.round_up = node.flag("ceil_mode", false)?;
            match node.operator() {
                "AveragePool" => node.flag("count_include_pad", false)?,
                _ => node.flag("storage_order", false)?,
            };
            if windows.kernel.is_none() {
                return Err("attribute `kernel_shape` is missing".to_string());
            }
            return Ok(windows);
        }
        node.expect_inputs(2, 3)?;
        let groups = node.int("group")?.unwrap_or(1);
        if !(1..=LARGEST).contains(&groups) {
            return Err(format!("group is {groups}, expected 1 or more"));
        }
        windows.groups = usize::try_from(groups).unwrap_or(usize::MAX);
        if kind == Kind::Transposed {
            windows.output_padding = sizes(node, "output_padding", 0, 1)?;
            windows.output_shape = sizes(node, "output_shape", 1, 1)?;
            if windows.output_shape.is_some() && windows.padding == Some(Padding::Same) {
                let reason = "output_shape is not supported with auto_pad, only with pads";
                return Err(reason.to_string());
            }
        }
        Ok(windows)
    }

    pub fn needs(&self, shapes: &Shapes<'_>) -> Result<Needs, String> {
        let input = shape_of(shapes, 0)?;
        let (rows, channels, places) = split(input, 0)?;
        if self.kind == Kind::Pool {
            let kernel = self.kernel.as_deref().unwrap_or_default();
            let axes = self.axes(places, kernel)?;
            return Ok(pool(rows, channels, input, kernel, &axes));
        }
        let weights = shape_of(shapes, 1)?;
        let (outer, inner, kernel) = split(weights, 1)?;
        if weights.contains(&0) || places.len() != kernel.len() {
            return Err(format!(
                "input 0 has shape {input:?}, which does not fit input 1 of shape {weights:?}"
            ));
        }
        if let Some(expected) = &self.kernel
            && expected != kernel
        {
            return Err(format!(
                "input 1 has shape {weights:?}, and kernel_shape is {expected:?}"
            ));
        }
        let groups = self.groups;
        let expected = match self.kind {
            Kind::Transposed => Some(outer),
            _ => inner.checked_mul(groups),
        };
        if expected != Some(channels) || outer % groups != 0 {
            return Err(format!(
                "input 0 has {channels} channels, which does not fit {groups} groups of input 1 of \
                 shape {weights:?}"
            ));
        }
        let axes = self.axes(places, kernel)?;
        Ok(match self.kind {
            Kind::Transposed => self.transposed(input, weights, &axes),
            _ => self.convolution(input, weights, &axes),
        })
    }

    pub fn packed(&self, shapes: &Shapes<'_>) -> u64 {
        let Some(weights @ [outer, inner, kernel @ ..]) = shapes.get(1).copied().flatten() else {
            return 0;
        };
        let (groups, kernel) = (self.groups, operations(kernel));
        if self.kind == Kind::Transposed {
            let rows = kernel.saturating_mul(*inner as u64);
            return packed(groups, rows, outer / groups);
        }
        // With a filter for each channel there is no matrix.
        if groups > 1 && groups == *outer && *inner == 1 {
            return operations(weights);
        }
        packed(groups, (outer / groups) as u64, *inner).saturating_mul(kernel)
    }

    fn convolution(&self, input: &[usize], weights: &[usize], axes: &[Axis]) -> Needs {
        let (rows, channels, filters) = (input[0], input[1], weights[0]);
        let kernel = operations(&weights[2..]);
        let (outputs, windows) = outputs_of(rows, filters, axes);
        let inner = operations(&[weights[1]]).saturating_mul(kernel);
        // Each window with all it meets, one beside the other.
        let columns = filled(windows, PANEL_COLUMNS);
        let unrolled = operations(&[rows, channels])
            .saturating_mul(kernel)
            .saturating_mul(columns);
        let padded = axes
            .iter()
            .fold(operations(&[rows, channels]), |all, axis| {
                all.saturating_mul(axis.padded)
            });
        Needs {
            operations: total(&[
                operations(&outputs).saturating_mul(inner),
                unrolled,
                padded,
                operations(&outputs),
            ]),
            elements: total(&[
                padded,
                unrolled,
                windows,
                operations(&outputs).saturating_mul(2),
            ]),
            offsets: offsets(axes, kernel),
            outputs: vec![outputs],
        }
    }

    fn transposed(&self, input: &[usize], weights: &[usize], axes: &[Axis]) -> Needs {
        let groups = self.groups;
        let filters = weights[1].saturating_mul(groups);
        let (outputs, _) = outputs_of(input[0], filters, axes);
        // The products of every element with the weights, before those of one place are added.
        let each = operations(&weights[1..]);
        let places = operations(&input[2..]);
        let products = operations(&[input[0], groups]).saturating_mul(each);
        let packed_products = products.saturating_mul(filled(places, PANEL_COLUMNS));
        Needs {
            operations: total(&[
                packed_products.saturating_mul((weights[0] / groups) as u64),
                // Each is added to its place, which is found anew.
                products.saturating_mul(places).saturating_mul(64),
                operations(&outputs),
            ]),
            elements: total(&[
                operations(input).saturating_mul(PANEL_COLUMNS),
                packed_products,
                operations(&outputs).saturating_mul(3),
            ]),
            offsets: 0,
            outputs: vec![outputs],
        }
    }

    fn axes(&self, places: &[usize], kernel: &[usize]) -> Result<Vec<Axis>, String> {
        let dimensions = places.len();
        let lists = [
            ("kernel_shape", &self.kernel),
            ("strides", &self.strides),
            ("dilations", &self.dilations),
            ("output_padding", &self.output_padding),
            ("output_shape", &self.output_shape),
        ];
        for (name, list) in lists {
            if let Some(list) = list
                && list.len() != dimensions
            {
                return Err(format!(
                    "attribute `{name}` has {} values for an input of {dimensions} dimensions \
                     beside rows and channels",
                    list.len()
                ));
            }
        }
        if let Some(Padding::Given(pads)) = &self.padding
            && pads.len() != 2 * dimensions
        {
            return Err(format!(
                "attribute `pads` has {} values for an input of {dimensions} dimensions beside rows \
                 and channels",
                pads.len()
            ));
        }
        (0..dimensions)
            .map(|d| self.axis(d, places, kernel))
            .collect()
    }

    fn axis(&self, d: usize, places: &[usize], kernel: &[usize]) -> Result<Axis, String> {
        let at = |list: &Option<Vec<usize>>, default| match list {
            Some(list) => list[d],
            None => default,
        };
        let (input, kernel) = (places[d], kernel[d]);
        let (stride, dilation) = (at(&self.strides, 1), at(&self.dilations, 1));
        let too_large = || format!("the windows of dimension {d} are too large");
        let window = (kernel - 1)
            .checked_mul(dilation)
            .and_then(|reach| reach.checked_add(1))
            .ok_or_else(too_large)?;
        let (before, after) = match &self.padding {
            Some(Padding::Given(pads)) => (pads[d], pads[d + places.len()]),
            _ => (0, 0),
        };
        if self.kind == Kind::Pool && (before >= window || after >= window) {
            return Err(format!(
                "dimension {d} is padded by {before} and {after}, expected less than the window of \
                 {window}"
            ));
        }
        if self.kind == Kind::Transposed {
            return self.transposed_axis(d, input, window, (before, after), stride, dilation);
        }
        let (output, padded) = if self.padding == Some(Padding::Same) {
            let output = input.div_ceil(stride);
            let reach = output.saturating_sub(1).checked_mul(stride);
            let reach = reach.and_then(|reach| reach.checked_add(window));
            (output, reach.ok_or_else(too_large)?.max(input))
        } else {
            let padded = input.checked_add(before + after).ok_or_else(too_large)?;
            let Some(free) = padded.checked_sub(window) else {
                return Err(format!(
                    "the window of dimension {d} is {window} long, and the input with its padding \
                     only {padded}"
                ));
            };
            let mut output = free / stride + 1;
            if self.round_up && !free.is_multiple_of(stride) && output * stride < input + before {
                output += 1;
            }
            (output, padded)
        };
        // Each window that meets the padding may be of a kind of its own; the rest are alike.
        let outside = match padded == input && !self.round_up {
            true => 0,
            false => (padded - input) / stride + 2,
        };
        Ok(Axis {
            output,
            padded: (padded as u64).saturating_add(stride as u64),
            regions: outside.min(output).min(kernel.saturating_mul(2)) + 1,
        })
    }

    fn transposed_axis(
        &self,
        d: usize,
        input: usize,
        window: usize,
        (before, after): (usize, usize),
        stride: usize,
        dilation: usize,
    ) -> Result<Axis, String> {
        let more = self.output_padding.as_ref().map_or(0, |list| list[d]);
        if more > 0 && more >= stride.max(dilation) {
            return Err(format!(
                "output_padding of dimension {d} is {more}, expected less than the stride {stride} \
                 or the dilation {dilation}"
            ));
        }
        let whole = input
            .saturating_sub(1)
            .checked_mul(stride)
            .and_then(|whole| whole.checked_add(window))
            .ok_or_else(|| format!("the output of dimension {d} is too large"))?;
        let output = match (&self.output_shape, &self.padding) {
            (Some(shape), _) => {
                let least = whole.saturating_sub(before + after);
                if shape[d] < least || shape[d] >= whole.saturating_add(stride.max(dilation)) {
                    return Err(format!(
                        "output_shape of dimension {d} is {}, and the windows with their padding \
                         give {least}",
                        shape[d]
                    ));
                }
                shape[d]
            }
            (None, Some(Padding::Same)) => {
                if window - 1 < stride {
                    return Err(format!(
                        "the window of dimension {d} is {window} long, expected more than the \
                         stride {stride} with auto_pad"
                    ));
                }
                input
                    .saturating_mul(stride)
                    .checked_sub(more)
                    .ok_or_else(|| format!("output_padding of dimension {d} is too large"))?
            }
            _ => match whole.saturating_add(more).checked_sub(before + after) {
                Some(output) if output > 0 => output,
                _ => {
                    return Err(format!(
                        "the padding of dimension {d} is {before} and {after}, and without it the \
                         output has only {whole} elements"
                    ));
                }
            },
        };
        Ok(Axis {
            output,
            padded: 0,
            regions: 1,
        })
    }
}

fn pool(rows: usize, channels: usize, input: &[usize], kernel: &[usize], axes: &[Axis]) -> Needs {
    let kernel = operations(kernel);
    let (outputs, _) = outputs_of(rows, channels, axes);
    let elements = operations(&outputs);
    Needs {
        operations: elements.saturating_mul(kernel.saturating_mul(4).saturating_add(8)),
        // MaxPool gives the places too.
        elements: total(&[operations(input), elements.saturating_mul(6)]),
        offsets: offsets(axes, kernel),
        outputs: vec![outputs.clone(), outputs],
    }
}

/// The shape of the output, and the number of windows of one channel.
fn outputs_of(rows: usize, channels: usize, axes: &[Axis]) -> (Vec<usize>, u64) {
    let mut shape = vec![rows, channels];
    shape.extend(axes.iter().map(|axis| axis.output));
    let windows = operations(&shape[2..]);
    (shape, windows)
}

/// Each kind of window has a table of what it meets.
fn offsets(axes: &[Axis], kernel: u64) -> u64 {
    axes.iter().fold(kernel, |entries, axis| {
        entries.saturating_mul(axis.regions as u64)
    })
}

/// Rows, channels and the sizes of the other dimensions.
fn split(shape: &[usize], index: usize) -> Result<(usize, usize, &[usize]), String> {
    match shape {
        [first, second, places @ ..] if (1..=MOST_DIMENSIONS).contains(&places.len()) => {
            Ok((*first, *second, places))
        }
        _ => Err(format!(
            "input {index} has shape {shape:?}, expected 3 to {} dimensions",
            MOST_DIMENSIONS + 2
        )),
    }
}

/// An attribute of sizes, `times` for each dimension, each at least `least`.
fn sizes(
    node: &Node<'_>,
    name: &str,
    least: i64,
    times: usize,
) -> Result<Option<Vec<usize>>, String> {
    let Some(found) = node.ints(name)? else {
        return Ok(None);
    };
    if found.is_empty() || found.len() > times * MOST_DIMENSIONS {
        return Err(format!(
            "attribute `{name}` has {} values, expected at most {}",
            found.len(),
            times * MOST_DIMENSIONS
        ));
    }
    if let Some(outside) = found.iter().find(|size| !(least..=LARGEST).contains(*size)) {
        return Err(format!(
            "attribute `{name}` has the value {outside}, expected {least} to {LARGEST}"
        ));
    }
    let sizes = found.iter().map(|size| usize::try_from(*size).unwrap_or(0));
    Ok(Some(sizes.collect()))
}

fn padding(node: &Node<'_>) -> Result<Option<Padding>, String> {
    let pads = sizes(node, "pads", 0, 2)?;
    let automatic = node.string("auto_pad")?.unwrap_or("NOTSET");
    match (automatic, pads) {
        ("NOTSET", pads) => Ok(pads.map(Padding::Given)),
        ("VALID", None) => Ok(None),
        ("SAME_UPPER" | "SAME_LOWER", None) => Ok(Some(Padding::Same)),
        // Exporters write the default beside it.
        ("VALID", Some(pads)) if pads.iter().all(|pad| *pad == 0) => Ok(Some(Padding::Given(pads))),
        (_, Some(_)) => Err(format!(
            "attributes `pads` and `auto_pad` {automatic} are given together, expected one"
        )),
        _ => Err(format!(
            "auto_pad is `{automatic}`, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER"
        )),
    }
}
