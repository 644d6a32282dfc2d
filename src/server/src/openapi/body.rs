//! Schemas by name.

use std::borrow::Cow;

use utoipa::{
    ToSchema,
    openapi::{Ref, RefOr, Schema},
};

/// The schema of a type that is sent as JSON.
#[derive(Clone, Copy)]
pub(super) struct Body {
    name: fn() -> Cow<'static, str>,
    collect: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Body {
    pub(super) const fn of<T: ToSchema>() -> Self {
        Self { name: T::name, collect: collect::<T> }
    }

    /// Where the schema stands.
    pub(super) fn reference(self) -> Ref {
        Ref::from_schema_name((self.name)())
    }

    /// Adds the schema and all that it refers to.
    pub(super) fn collect(self, schemas: &mut Vec<(String, RefOr<Schema>)>) {
        (self.collect)(schemas);
    }
}

fn collect<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}
