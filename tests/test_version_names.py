import pytest

from gur_spark.registry.names import VersionName

VERSION = "gur-20240101T000000-0a1b2c3d"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (VERSION, VersionName(VERSION)),
        (f"{VERSION}-mean3", VersionName(VERSION, mean_of=3)),
        (f"{VERSION}-mean12", VersionName(VERSION, mean_of=12)),
        (f"{VERSION}@old", VersionName(VERSION, space="old")),
        (f"{VERSION}-mean3@old-mean2", VersionName(VERSION, mean_of=3, space="old-mean2")),
        # Nobody writes these suffixes, so they belong to the version's own name.
        ("v-mean1", VersionName("v-mean1")),
        ("v-mean03", VersionName("v-mean03")),
        ("v-meaning", VersionName("v-meaning")),
        ("-mean3", VersionName("-mean3")),
    ],
)
def test_a_name_is_read_as_it_is_written(text: str, name: VersionName) -> None:
    assert VersionName.parse(text) == name
    assert str(name) == text


def test_means_of_one_date_are_the_version_itself() -> None:
    assert str(VersionName("v", mean_of=1)) == "v"


def test_means_can_be_mapped_to_another_space() -> None:
    assert str(VersionName.parse("v-mean3").mapped_to("old")) == "v-mean3@old"
