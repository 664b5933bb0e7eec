//! Who may connect, and who may say and hear what.

use std::sync::Arc;

use crate::{
    acl::{Acl, Operation},
    users::Users,
};

/// What a [`Broker`](crate::Broker) asks before it lets clients in and messages pass.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Who has a password. `None`: nobody is asked for one, and user names say nothing.
    pub users: Option<Arc<Users>>,
    /// Whether clients without a user name are let in.
    pub anonymous: bool,
    /// What clients may publish and subscribe to. `None`: all.
    pub acl: Option<Arc<Acl>>,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self { anonymous: true, ..Self::default() }
    }

    pub(crate) fn may(&self, operation: Operation, user: Option<&str>, client: &str, topic: &str) -> bool {
        self.acl.as_ref().is_none_or(|acl| acl.allows(operation, user, client, topic))
    }

    /// Whether what a user said still stands: that of one who is there no more does not.
    pub(crate) fn knows(&self, user: Option<&str>) -> bool {
        match (user, &self.users) {
            (Some(user), Some(users)) => users.contains(user),
            _ => true,
        }
    }
}
