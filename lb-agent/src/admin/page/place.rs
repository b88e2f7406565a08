//! The pages that the navigation leads to. Pure.

use maud::{Markup, html};

/// A page of the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Vips,
    Flows,
    Registrar,
    Events,
    Configuration,
}

impl Place {
    const ALL: [Self; 6] = [
        Self::Overview,
        Self::Vips,
        Self::Flows,
        Self::Registrar,
        Self::Events,
        Self::Configuration,
    ];

    /// Whether it is for who reads the page where it is published, too.
    fn is_published(self) -> bool {
        !matches!(self, Self::Registrar | Self::Configuration)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Overview => "/",
            Self::Vips => "/vips",
            Self::Flows => "/flows",
            Self::Registrar => "/registrar",
            Self::Events => "/events",
            Self::Configuration => "/configuration",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Overview => "Services",
            Self::Vips => "VIPs",
            Self::Flows => "Flows",
            Self::Registrar => "Registrar",
            Self::Events => "Events",
            Self::Configuration => "Configuration",
        }
    }

    /// How often the script asks for it anew, beside what the stream tells of; 0 is never.
    pub(super) fn every_seconds(self) -> u32 {
        match self {
            Self::Overview | Self::Configuration => 0,
            Self::Registrar | Self::Events => 5,
            // To list flows all processes are looked through.
            Self::Vips | Self::Flows => 10,
        }
    }
}

/// The bar, which says which of its pages this is. Where the page is `published` it leads to none that is not shown there.
pub(super) fn navigation(here: Option<Place>, published: bool) -> Markup {
    let places = Place::ALL.into_iter();
    let places = places.filter(|it| !published || it.is_published());
    html! {
        nav.places aria-label="Pages" {
            @for place in places {
                @let current = (here == Some(place)).then_some("page");
                a href=(place.path()) aria-current=[current] { (place.name()) }
            }
        }
    }
}
