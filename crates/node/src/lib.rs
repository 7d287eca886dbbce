//! One Holdfast node, put together.
