//! SUBSCRIBE and UNSUBSCRIBE.

use std::{sync::Arc, time::Instant};

use mqtt_proto::v5::{self, SubscribeReasonCode as Code, UnsubscribeReasonCode};

use super::Broker;
use crate::{
    acl::Operation,
    codec::{self, Fault, Reason, fault},
    session::Scan,
    topic,
    trie::Options,
};

impl Broker {
    pub(super) fn subscribe(
        &mut self,
        id: usize,
        session: usize,
        subscribe: v5::Subscribe,
        now: Instant,
    ) -> Result<(), Fault> {
        let shared_and_not_local =
            subscribe.topics.iter().any(|(filter, options)| options.no_local && filter.is_shared());
        if shared_and_not_local {
            // [MQTT-3.8.3-4]
            return Err(fault(Reason::ProtocolError, "No Local with a shared subscription"));
        }
        let identifier = subscribe.properties.subscription_id.map_or(0, v5::VarByteInt::value);
        let codes = subscribe
            .topics
            .iter()
            .map(|(filter, options)| self.subscribe_one(session, filter, *options, identifier))
            .collect();
        subscribe.topics.iter().for_each(|(filter, _)| self.count_group(filter, now));
        self.touch(session, now);
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        let protocol = connection.protocol;
        self.write(id, |out| codec::put_suback(out, protocol, subscribe.pid, codes));
        self.pump(session, now);
        Ok(())
    }

    fn subscribe_one(
        &mut self,
        id: usize,
        filter: &str,
        asked: v5::SubscriptionOptions,
        identifier: u32,
    ) -> Code {
        let Some(session) = self.sessions.get_mut(id) else { return Code::UnspecifiedError };
        let is_new = !session.subscriptions.contains_key(filter);
        if topic::levels(filter) > self.limits.levels {
            return Code::TopicFilterInvalid;
        }
        if is_new && session.subscriptions.len() >= self.limits.subscriptions {
            return Code::QuotaExceeded;
        }
        let shared = topic::shared(filter);
        let proper = shared.and_then(Result::ok).map_or(filter, |(_, filter)| filter);
        // What a filter with wildcards brings is judged message by message.
        if !topic::is_wild(proper)
            && !self.access.may(Operation::Read, session.user.as_deref(), &session.client, proper)
        {
            return Code::NotAuthorized;
        }
        let options = Options {
            qos: asked.max_qos.into(),
            no_local: asked.no_local,
            retain_as_published: asked.retain_as_published,
            id: identifier,
        };
        let filter: Arc<str> = filter.into();
        session.subscriptions.insert(filter.clone(), options);
        self.subscriptions.insert(&filter, id, options);
        let brings = match asked.retain_handling {
            v5::RetainHandling::SendAtSubscribe => true,
            v5::RetainHandling::SendAtSubscribeIfNotExist => is_new,
            v5::RetainHandling::DoNotSend => false,
        };
        if brings && shared.is_none() {
            // One look at a time for each filter: whoever subscribes again begins again.
            session.scans.retain(|scan| scan.filter != filter);
            session.scans.push_back(Scan { filter, options, after: None });
        }
        match asked.max_qos {
            mqtt_proto::QoS::Level0 => Code::GrantedQoS0,
            mqtt_proto::QoS::Level1 => Code::GrantedQoS1,
            mqtt_proto::QoS::Level2 => Code::GrantedQoS2,
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        id: usize,
        session: usize,
        unsubscribe: v5::Unsubscribe,
        now: Instant,
    ) {
        let Some(state) = self.sessions.get_mut(session) else { return };
        let mut codes = Vec::with_capacity(unsubscribe.topics.len());
        for filter in &unsubscribe.topics {
            codes.push(if state.subscriptions.remove(&**filter).is_some() {
                state.scans.retain(|scan| *scan.filter != **filter);
                self.subscriptions.remove(filter, session);
                UnsubscribeReasonCode::Success
            } else {
                UnsubscribeReasonCode::NoSubscriptionExisted
            });
        }
        unsubscribe.topics.iter().for_each(|filter| self.count_group(filter, now));
        self.touch(session, now);
        let Some(connection) = self.connections.get(id) else { return };
        let protocol = connection.protocol;
        self.write(id, |out| codec::put_unsuback(out, protocol, unsubscribe.pid, codes));
    }
}
