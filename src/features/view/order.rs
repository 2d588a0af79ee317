//! What features are computed from, and in which order.

use std::collections::HashMap;

use super::build::Draft;
use super::file::Findings;
use super::relation::{RelatedFeature, Relation};
use super::{Feature, Role};

/// Groups the derived features by depth; expressions that read each other in a circle are a mistake.
pub fn order_derived(
    features: &[Feature],
    drafts: &[Draft<'_>],
    by_name: &HashMap<String, usize>,
    findings: &mut Findings<'_>,
) -> Vec<Vec<usize>> {
    let is_derived = |index: usize| drafts[index].role == Role::Derived;
    let mut done: Vec<bool> = (0..features.len())
        .map(|index| !is_derived(index))
        .collect();
    let mut levels = Vec::new();
    loop {
        let ready: Vec<usize> = (0..features.len())
            .filter(|&index| !done[index])
            .filter(|&index| {
                let columns = features[index].expression.iter().flat_map(|e| e.columns());
                columns
                    .filter_map(|column| by_name.get(column))
                    .all(|&input| done[input])
            })
            .collect();
        if ready.is_empty() {
            break;
        }
        for &index in &ready {
            done[index] = true;
        }
        levels.push(ready);
    }
    let reads = |index: usize| {
        let columns = features[index].expression.iter().flat_map(|e| e.columns());
        columns.filter_map(|column| by_name.get(column).copied())
    };
    // Those that are left read themselves, or read one that does.
    let reads_itself = |start: usize| {
        let mut seen = vec![false; features.len()];
        let mut open: Vec<usize> = reads(start).collect();
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut seen[index], true) {
                open.extend(reads(index));
            }
        }
        seen[start]
    };
    let circle: Vec<usize> = (0..features.len())
        .filter(|&index| !done[index] && reads_itself(index))
        .collect();
    if let Some(&first) = circle.first() {
        let names: Vec<&str> = circle
            .iter()
            .map(|&index| drafts[index].name.as_str())
            .collect();
        let problem = match names.as_slice() {
            [_] => "its expression depends on itself".to_owned(),
            _ => format!(
                "its expression depends on itself through other features: {} read each other",
                names.join(", ")
            ),
        };
        findings.add(drafts[first].at, &drafts[first].place(), problem);
    }
    levels
}

/// The columns that each feature is computed from.
pub fn inputs(
    features: &[Feature],
    by_name: &HashMap<String, usize>,
    relations: &[Relation],
    related: &[RelatedFeature],
    first_related: usize,
) -> Vec<Vec<usize>> {
    let of_feature = |(index, feature): (usize, &Feature)| match feature.role {
        Role::Derived => {
            let columns = feature.expression.iter().flat_map(|e| e.columns());
            columns
                .filter_map(|column| by_name.get(column).copied())
                .collect()
        }
        Role::Related => {
            let related = related.get(index - first_related);
            let relation = related.and_then(|related| relations.get(related.relation));
            relation.map_or(Vec::new(), |relation| relation.key_features().collect())
        }
        Role::Stored | Role::Request | Role::Window => Vec::new(),
    };
    features.iter().enumerate().map(of_feature).collect()
}
