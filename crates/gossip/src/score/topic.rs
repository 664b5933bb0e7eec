//! What a peer has done in one topic: P1 to P4.

use std::time::{Duration, Instant};

use crate::TopicScoreParams;

/// Counters of one peer in one topic.
#[derive(Debug, Default)]
pub(super) struct TopicStats {
    /// Since when it is in the mesh, and how long that was at the last decay.
    mesh: Option<(Instant, Duration)>,
    pub(super) first_message_deliveries: f64,
    /// Whether it has been in the mesh for long enough that too few messages cost something.
    active: bool,
    pub(super) mesh_message_deliveries: f64,
    mesh_failure_penalty: f64,
    pub(super) invalid_message_deliveries: f64,
}

impl TopicStats {
    pub(super) fn score(&self, params: &TopicScoreParams) -> f64 {
        let mut score = 0.0;
        if let Some((_, time)) = self.mesh {
            let quanta = time.as_secs_f64() / params.time_in_mesh_quantum.as_secs_f64();
            score += quanta.min(params.time_in_mesh_cap) * params.time_in_mesh_weight;
        }
        let first = self.first_message_deliveries.min(params.first_message_deliveries_cap);
        score += first * params.first_message_deliveries_weight;
        if let Some(deficit) = self.deficit(params) {
            score += deficit * deficit * params.mesh_message_deliveries_weight;
        }
        score += self.mesh_failure_penalty * params.mesh_failure_penalty_weight;
        let invalid = self.invalid_message_deliveries;
        score += invalid * invalid * params.invalid_message_deliveries_weight;
        score * params.topic_weight
    }

    pub(super) fn join_mesh(&mut self, now: Instant) {
        self.mesh = Some((now, Duration::ZERO));
        self.active = false;
    }

    /// Out of the mesh; too few messages up to then stick (P3b).
    pub(super) fn leave_mesh(&mut self, params: &TopicScoreParams) {
        if let Some(deficit) = self.deficit(params) {
            self.mesh_failure_penalty += deficit * deficit;
        }
        self.mesh = None;
        self.active = false;
    }

    pub(super) fn first_delivery(&mut self, params: &TopicScoreParams) {
        let more = self.first_message_deliveries + 1.0;
        self.first_message_deliveries = more.min(params.first_message_deliveries_cap);
        self.mesh_delivery(params);
    }

    /// A copy while copies count.
    pub(super) fn mesh_delivery(&mut self, params: &TopicScoreParams) {
        if self.mesh.is_some() {
            let more = self.mesh_message_deliveries + 1.0;
            self.mesh_message_deliveries = more.min(params.mesh_message_deliveries_cap);
        }
    }

    /// No counter is above what new parameters allow.
    pub(super) fn cap(&mut self, params: &TopicScoreParams) {
        self.first_message_deliveries =
            self.first_message_deliveries.min(params.first_message_deliveries_cap);
        self.mesh_message_deliveries = self.mesh_message_deliveries.min(params.mesh_message_deliveries_cap);
    }

    pub(super) fn decay(&mut self, params: &TopicScoreParams, zero: f64, now: Instant) {
        for (counter, factor) in [
            (&mut self.first_message_deliveries, params.first_message_deliveries_decay),
            (&mut self.mesh_message_deliveries, params.mesh_message_deliveries_decay),
            (&mut self.mesh_failure_penalty, params.mesh_failure_penalty_decay),
            (&mut self.invalid_message_deliveries, params.invalid_message_deliveries_decay),
        ] {
            *counter *= factor;
            if *counter < zero {
                *counter = 0.0;
            }
        }
        if let Some((since, time)) = &mut self.mesh {
            *time = now.saturating_duration_since(*since);
            self.active |= *time > params.mesh_message_deliveries_activation;
        }
    }

    /// Whether it is as good as not there.
    pub(super) fn is_blank(&self) -> bool {
        self.mesh.is_none()
            && self.first_message_deliveries == 0.0
            && self.mesh_message_deliveries == 0.0
            && self.mesh_failure_penalty == 0.0
            && self.invalid_message_deliveries == 0.0
    }

    /// Messages too few, where that counts.
    fn deficit(&self, params: &TopicScoreParams) -> Option<f64> {
        let deficit = params.mesh_message_deliveries_threshold - self.mesh_message_deliveries;
        (self.active && deficit > 0.0).then_some(deficit)
    }
}
