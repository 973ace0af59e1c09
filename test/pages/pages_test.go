package pages

import (
	"reflect"
	"testing"
)

func TestAPageIsReadWithItsAnchorsLinksAndBlocks(t *testing.T) {
	p := Parse("docs/x.md", []byte("# A `b` c, d!\n\n[x](y.md#z) ![i](i.png)\n\n## Twice\n\n## Twice\n\n"+
		"<!-- test: skip because of that -->\n```sh\nfalse\n```\n\n- in a list:\n\n  ```console\n  $ echo a \\\n  > b\n  a b\n  $ true\n  ```\n\n"+
		"# Files\n\n```yaml\n# x.yaml\nkind: X\n```\n"))
	below, err := p.Below("Twice", "sh")
	if err != nil {
		t.Error(err)
	}
	for what, pair := range map[string][2]any{
		"anchors": {p.Anchors, []string{"a-b-c-d", "twice", "twice-1", "files"}},
		"links":   {p.Links, []Link{{3, "y.md#z"}, {3, "i.png"}}},
		"blocks": {p.Blocks, []Block{
			{Line: 11, Language: "sh", Text: "false\n", Comment: "test: skip because of that", Heading: "Twice"},
			{Line: 17, Language: "console", Text: "$ echo a \\\n> b\na b\n$ true\n", Heading: "Twice"},
			{Line: 26, Language: "yaml", Text: "# x.yaml\nkind: X\n", Heading: "Files"},
		}},
		"transcript": {ParseTranscript(p.Blocks[1].Text), []Exchange{{"echo a \\\nb\n", "a b\n"}, {"true\n", ""}}},
		"sh below":   {below, []string{"false\n"}},
		"files":      {[]string{p.Blocks[0].File(), p.Blocks[2].File()}, []string{"", "x.yaml"}},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the %s are %#v, not %#v", what, pair[0], pair[1])
		}
	}
	if none, err := p.Below("Files", "sh"); err == nil {
		t.Errorf("there is nothing in sh below Files, and not %q", none)
	}
}

func TestWhatATranscriptShows(t *testing.T) {
	for name, c := range map[string]struct {
		shown, printed string
		matches        bool
	}{
		"is what is printed":                          {"yes\n", "yes\n", true},
		"is not what is printed":                      {"yes\n", "no\n", false},
		"is more than what is printed":                {"a\nb\n", "a\n", false},
		"is less than what is printed":                {"a\n", "a\nb\n", false},
		"has columns of another width":                {"NAME  AGE\nhs    1m\n", "NAME    AGE\nhs      12s\n", true},
		"has another time":                            {"until 2027-02-21T22:13:05.986594Z\n", "until 2031-01-01T00:00:00Z\n", true},
		"has no time":                                 {"until 2027-02-21T22:13:05Z\n", "until never\n", false},
		"has another age, before a comma":             {"in 9d, at noon\n", "in 10d, at noon\n", true},
		"has another prefix of a key":                 {"key Kazn4vLRor2L.\n", "key aaaaaaaa-_3L.\n", true},
		"has no prefix of a key":                      {"key Kazn4vLRor2L.\n", "key none.\n", false},
		"leaves the rest of a word out":               {"hskey-api-…\n", "hskey-api-012-345\n", true},
		"leaves the rest of a word out, which is two": {"hskey-api-…\n", "hskey-api-012 345\n", false},
		"leaves lines out":                            {"a\n…\nd\n", "a\nb\nc\nd\n", true},
		"has a dot that is no other character":        {"a.b\n", "axb\n", false},
	} {
		if Pattern(c.shown).MatchString(c.printed) != c.matches {
			t.Errorf("what %s: that it matches should be %t", name, c.matches)
		}
	}
}
