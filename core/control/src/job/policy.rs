//! `podFailurePolicy`: what a failed pod means.

use model::Pod;
use model::batch::{FailureAction, FailureRule};
use model::condition;
use model::pod::ContainerState;

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job has failed, with this message.
    FailJob(String),
    /// The index has failed.
    FailIndex,
    /// Nothing.
    Ignore,
    /// One failure more.
    Count,
}

/// The first rule that matches decides.
pub fn judge(rules: &[FailureRule], pod: &Pod) -> Verdict {
    for (index, rule) in rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action {
            FailureAction::FailJob => Verdict::FailJob(format!("{why} matching FailJob rule at index {index}")),
            FailureAction::FailIndex => Verdict::FailIndex,
            FailureAction::Ignore => Verdict::Ignore,
            FailureAction::Count => Verdict::Count,
        };
    }
    Verdict::Count
}

fn matches(rule: &FailureRule, pod: &Pod) -> Option<String> {
    if let Some((container, within, codes)) = &rule.exit_codes {
        for status in pod.status.containers.iter().chain(&pod.status.init_containers) {
            let ContainerState::Terminated { exit_code, .. } = status.state else { continue };
            if exit_code == 0 || container.as_ref().is_some_and(|name| *name != status.name) {
                continue;
            }
            if codes.contains(&exit_code) == *within {
                return Some(format!(
                    "Container {} for pod {} failed with exit code {exit_code}",
                    status.name, pod.meta.key
                ));
            }
        }
        return None;
    }
    rule.conditions.iter().find_map(|(kind, truth)| {
        condition::find(&pod.status.conditions, kind)
            .filter(|condition| condition.status == *truth)
            .map(|_| format!("Pod {} has condition {kind}", pod.meta.key))
    })
}
