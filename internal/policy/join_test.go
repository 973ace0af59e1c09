package policy

import (
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// parts parses texts, named a, b and so on.
func parts(g Gomega, texts ...string) []Part {
	var all []Part
	for i, text := range texts {
		document, err := Parse(text)
		g.Expect(err).NotTo(HaveOccurred(), text)
		all = append(all, Part{Source: string(rune('a' + i)), Document: document})
	}
	return all
}

func TestJoin(t *testing.T) {
	for name, test := range map[string]struct {
		texts     []string
		means     string
		conflicts []Conflict
	}{
		"one is taken as it is":              {texts: []string{`{"acls": [1, 2], "x": {"y": 1}}`}, means: `{"acls": [1, 2], "x": {"y": 1}}`},
		"lists one after the other":          {texts: []string{`{"acls": [1]}`, `{"acls": [2, 1]}`, `{"acls": []}`}, means: `{"acls": [1, 2, 1]}`},
		"maps by key":                        {texts: []string{`{"groups": {"group:a": ["x"]}}`, `{"groups": {"group:b": ["y"]}}`}, means: `{"groups": {"group:a": ["x"], "group:b": ["y"]}}`},
		"the same key with the same value":   {texts: []string{`{"hosts": {"a": "10.0.0.1"}}`, `{"hosts": {"a": /* same */ "10.0.0.1"}}`}, means: `{"hosts": {"a": "10.0.0.1"}}`},
		"the same key with another value":    {texts: []string{`{"groups": {"group:a": ["x"]}}`, `{"groups": {"group:a": ["y"]}}`}, conflicts: []Conflict{{"b", `"groups"."group:a"`, "a"}}},
		"lists in maps are values":           {texts: []string{`{"tagOwners": {"tag:a": ["x", "y"]}}`, `{"tagOwners": {"tag:a": ["y", "x"]}}`}, conflicts: []Conflict{{"b", `"tagOwners"."tag:a"`, "a"}}},
		"scalars that are the same":          {texts: []string{`{"randomizeClientPort": true}`, `{"randomizeClientPort": true}`}, means: `{"randomizeClientPort": true}`},
		"scalars that differ":                {texts: []string{`{"randomizeClientPort": true}`, `{"acls": []}`, `{"randomizeClientPort": false}`}, conflicts: []Conflict{{"c", `"randomizeClientPort"`, "a"}}},
		"a list and a map":                   {texts: []string{`{"acls": []}`, `{"acls": {}}`}, conflicts: []Conflict{{"b", `"acls"`, "a"}}},
		"a list and null":                    {texts: []string{`{"acls": []}`, `{"acls": null}`}, conflicts: []Conflict{{"b", `"acls"`, "a"}}},
		"routes by key, exit nodes as lists": {texts: []string{`{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"]}, "exitNode": ["a"]}}`, `{"autoApprovers": {"routes": {"192.168.0.0/16": ["b"]}, "exitNode": ["b"]}}`}, means: `{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"], "192.168.0.0/16": ["b"]}, "exitNode": ["a", "b"]}}`},
		"the same route otherwise":           {texts: []string{`{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"]}}}`, `{"autoApprovers": {"routes": {"10.0.0.0/8": ["b"]}}}`}, conflicts: []Conflict{{"b", `"autoApprovers"."routes"."10.0.0.0/8"`, "a"}}},
		"all conflicts are named":            {texts: []string{`{"groups": {"a": [1], "b": [1]}}`, `{"groups": {"c": [1]}}`, `{"groups": {"a": [2], "c": [2]}}`}, conflicts: []Conflict{{"c", `"groups"."a"`, "a"}, {"c", `"groups"."c"`, "b"}}},
		"numbers stay":                       {texts: []string{`{"x": {"big": 9007199254740993, "e": 1e3}}`, `{"y": 0.10}`}, means: `{"x": {"big": 9007199254740993, "e": 1000}, "y": 0.1}`},
		"the case of a section is no matter": {texts: []string{`{"ACLs": [1]}`, `{"acls": [2]}`}, means: `{"acls": [1, 2]}`},
		"nor are _ and - in it":              {texts: []string{`{"ac_ls": [1]}`, `{"acl-S": [2]}`, `{"acls": [3]}`}, means: `{"acls": [1, 2, 3]}`},
		"one alone has the name of all":      {texts: []string{`{"TAG_owners": {"tag:a_b": ["x"]}, "Acls": [1], "later_on": 1}`}, means: `{"tagOwners": {"tag:a_b": ["x"]}, "acls": [1], "later_on": 1}`},
		"not known, it has the first name":   {texts: []string{`{"later_on": [1]}`, `{"laterOn": [2]}`}, means: `{"later_on": [1, 2]}`},
		"approvers with _ and -":             {texts: []string{`{"auto_approvers": {"exit_node": ["a"]}}`, `{"auto-approvers": {"exit-node": ["b"], "ROUTES": {"10.0.0.0/8": ["a"]}}}`}, means: `{"autoApprovers": {"exitNode": ["a", "b"], "routes": {"10.0.0.0/8": ["a"]}}}`},
		"a section with _ differs":           {texts: []string{`{"hosts": {"a": "1"}}`, `{"ho_sts": {"a": "2"}}`}, conflicts: []Conflict{{"b", `"ho_sts"."a"`, "a"}}},
		"names with _ and - are others":      {texts: []string{`{"groups": {"group:a-b": ["x"]}}`, `{"groups": {"group:ab": ["y"]}}`}, means: `{"groups": {"group:a-b": ["x"], "group:ab": ["y"]}}`},
		"a section in another case differs":  {texts: []string{`{"groups": {"group:a": ["x"]}}`, `{"Groups": {"group:a": ["y"]}}`}, conflicts: []Conflict{{"b", `"Groups"."group:a"`, "a"}}},
		"a scalar in another case differs":   {texts: []string{`{"randomizeClientPort": true}`, `{"RandomizeClientPort": false}`}, conflicts: []Conflict{{"b", `"RandomizeClientPort"`, "a"}}},
		"approvers in another case":          {texts: []string{`{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"]}, "exitNode": ["a"]}}`, `{"AutoApprovers": {"Routes": {"10.0.0.0/8": ["a"]}, "exitnode": ["b"]}}`}, means: `{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"]}, "exitNode": ["a", "b"]}}`},
		"a route in another case differs":    {texts: []string{`{"autoApprovers": {"routes": {"10.0.0.0/8": ["a"]}}}`, `{"AUTOAPPROVERS": {"Routes": {"10.0.0.0/8": ["b"]}}}`}, conflicts: []Conflict{{"b", `"AUTOAPPROVERS"."Routes"."10.0.0.0/8"`, "a"}}},
		"names in other letters are others":  {texts: []string{`{"groups": {"group:a": ["x"]}}`, `{"groups": {"group:A": ["y"]}}`}, means: `{"groups": {"group:a": ["x"], "group:A": ["y"]}}`},
		"keys that are escaped are the same": {texts: []string{`{"hosts": {"a": 1}}`, `{"ho\u0073ts": {"\u0061": 2}}`}, conflicts: []Conflict{{"b", `"hosts"."a"`, "a"}}},
		"empty maps and lists":               {texts: []string{`{"groups": {}, "acls": []}`, `{"groups": {}, "acls": []}`}, means: `{"groups": {}, "acls": []}`},
		"a comment at the very end":          {texts: []string{`{"acls": [1]} // end`, `{"acls": [2]} // end`}, means: `{"acls": [1, 2]}`},
		"trailing commas":                    {texts: []string{`{"acls": [1,],}`, `{"acls": [2,], "ssh": [],}`}, means: `{"acls": [1, 2], "ssh": []}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			all := parts(g, test.texts...)
			text, conflicts := Join("head", all)
			g.Expect(conflicts).To(Equal(test.conflicts))
			if len(conflicts) > 0 {
				g.Expect(text).To(BeEmpty())
				return
			}
			joined, err := Parse(text)
			g.Expect(err).NotTo(HaveOccurred(), text)
			expected := parts(g, test.means)[0]
			g.Expect(meaning(joined.value)).To(Equal(meaning(expected.value)))
			again, _ := Join("head", parts(g, test.texts...))
			g.Expect(again).To(Equal(text), "the text is deterministic")
		})
	}
}

// The text that Headscale gets names its sources, and has the comments of all of them.
func TestJoinedText(t *testing.T) {
	g := NewWithT(t)
	text, conflicts := Join("Written by the operator.", parts(g, `// of a
{
  "groups": {
    // the admins
    "group:admin": ["alice@"], // two
  }, // after groups
  "acls": [
    {"action": "accept", "src": ["group:admin"], "dst": ["*:*"]}, // all of it
    // last of a
  ],
  // end of a
}`, `{"groups": {"group:web": ["bob@"]}, /* more */ "acls": [{"action": "accept", "src": ["group:web"], "dst": ["*:443"]}]}`))
	g.Expect(conflicts).To(BeEmpty())
	g.Expect(text).To(Equal(`// Written by the operator.
// of a
{
	"groups": {
		// a
		// the admins
		"group:admin": ["alice@"], // two

		// b
		"group:web": ["bob@"],
	}, // after groups
	"acls": [
		// a
		{"action": "accept", "src": ["group:admin"], "dst": ["*:*"]}, // all of it
		// last of a

		// b
		{"action": "accept", "src": ["group:web"], "dst": ["*:443"]},
	],
	// end of a
	/* more */
}
`), text)
}

func TestParse(t *testing.T) {
	for text, words := range map[string]string{
		``:                              "no HuJSON",
		`x`:                             "no HuJSON",
		`[]`:                            "no object",
		`null`:                          "no object",
		`"acls"`:                        "no object",
		`{}`:                            "empty policy allows everything",
		"// nothing\n{ /* here */ }":    "empty policy allows everything",
		`{"acls": [}`:                   "no HuJSON",
		`{"acls": []} {"acls": []}`:     "no HuJSON",
		`{"acls": [], "acls": []}`:      `"acls" stands twice`,
		`{"acls": [], "ac\u006cs": []}`: `"acls" stands twice`,
		`{"acls": [], "ACLs": []}`:      `"ACLs" stands twice, first as "acls"`,
		`{"acls": [], "ac_ls": []}`:     `"ac_ls" stands twice, first as "acls": neither case nor _ and - count`,
		`{"-": 1, "_": 1}`:              `"_" stands twice, first as "-"`,
		`{"acls": [], "aclſ": []}`:      `stands twice, first as "acls"`,
		`{"AutoApprovers": {"routes": {}, "Routes": {}}}`:       `"AutoApprovers"."Routes" stands twice, first as "routes"`,
		`{"auto_Approvers": {"exitNode": [], "exit-node": []}}`: `"auto_Approvers"."exit-node" stands twice, first as "exitNode"`,
		`{"groups": {"g": [], "g": [1]}}`:                       `"groups"."g" stands twice`,
		`{"acls": [{"src": 1, "src": 2}]}`:                      `"acls"[0]."src" stands twice`,
		`{"a": ` + strings.Repeat("[", 1<<20):                   "levels deep",
		`{"a": ` + strings.Repeat(`{"a":`, 101):                 "levels deep",
		"{acls: []}":                                            "no HuJSON",
		"{'acls': []}":                                          "no HuJSON",
		`{"acls": [] /* open }`:                                 "no HuJSON",
	} {
		_, err := Parse(text)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(words)), "%.60s", text)
	}
	for _, text := range []string{
		`{"acls": []} // end`,
		`{"groups": {"group:g_": [], "group:g": [], "group:G": []}, "autoApprovers": {"routes": {"fd00::a/128": [], "fd00::A/128": []}}}`,
		"{\"acls\": [\"" + strings.Repeat("[", 1000) + "\"]} // " + strings.Repeat("{", 1000),
		"\n/* \" [ */ {\"acls\": [\"\\\"[\"],}\n\n",
	} {
		_, err := Parse(text)
		NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%.60s", text)
	}
}

func TestMeaning(t *testing.T) {
	for _, test := range []struct {
		a, b     string
		sections []string
	}{
		{`{"acls": [1]}`, "// by hand\n{ \"acls\" : [ 1, ], }", nil},
		{`{"a": 1, "b": {"x": 1, "y": 2}}`, `{"b": {"y": 2, "x": 1}, "a": 1.0}`, nil},
		{`{"a": "\u0061\/"}`, `{"a": "a/"}`, nil},
		{`{"acls": [1, 2]}`, `{"acls": [2, 1]}`, []string{"acls"}},
		{`{"a": 9007199254740993}`, `{"a": 9007199254740992}`, []string{"a"}},
		{`{"a": "1"}`, `{"a": 1}`, []string{"a"}},
		{`{"a": null}`, `{"b": null}`, []string{"a", "b"}},
		{`{"acls": [1], "ssh": []}`, `{"acls": [1]}`, []string{"ssh"}},
		{`{"a": ["x,y"]}`, `{"a": ["x", "y"]}`, []string{"a"}},
	} {
		g := NewWithT(t)
		both := parts(g, test.a, test.b)
		g.Expect(Differing(both[0].Document, both[1].Document)).To(Equal(test.sections), test.a)
		same := both[0].Digest() == both[1].Digest()
		g.Expect(same).To(Equal(test.sections == nil), test.a)
	}
	NewWithT(t).Expect(Differing(nil, parts(NewWithT(t), `{"b": 1, "a": 1}`)[0].Document)).To(Equal([]string{"a", "b"}))
}

// A name that is joined as another one is not misspelled.
func TestMisspelled(t *testing.T) {
	g := NewWithT(t)
	g.Expect(parts(g, `{"ACLs": [], "acl": [], "Groups": {}, "tag_owners": {}, "new": 1, "SSH-Tests": [], "Host": {}, "tag_owner": {}}`)[0].Misspelled()).To(Equal(
		map[string]string{"acl": "acls", "tag_owner": "tagOwners", "Host": "hosts"}))
}

// An absent list of rules allows everything, an empty one nothing.
func TestAllowsAll(t *testing.T) {
	for text, all := range map[string]bool{
		`{"groups": {}}`: true, `{"acls": null}`: true, `{"ACLs": null}`: true, `{"acl": [1]}`: true,
		`{"acls": []}`: false, `{"grants": []}`: false, `{"ssh": [1]}`: true, `{"acls": {}}`: true,
		`{"ACLs": [1]}`: false, `{"Acls": []}`: false, `{"GRANTS": []}`: false, `{"ac_ls": [1]}`: false, `{"-grants_": []}`: false, `{"ac_ls": null}`: true, `{"acl\u017f": []}`: false,
	} {
		g := NewWithT(t)
		g.Expect(parts(g, text)[0].AllowsAll()).To(Equal(all), text)
	}
}

// What cannot be read may have rules: it is not to be replaced by what has none.
func TestMayHaveRules(t *testing.T) {
	for text, may := range map[string]bool{
		``: false, " \n": false, `{}`: false, `{"groups": {}}`: false, `{"acls": null}`: false,
		`{"acls": []}`: true, `{"ACLs": [1]}`: true, `{"AC-LS": [1]}`: true, `x`: true, `{"acls": [1], "ACLs": [2]}`: true, `{"acls": [1}`: true,
	} {
		NewWithT(t).Expect(MayHaveRules(text)).To(Equal(may), text)
	}
}

// isRenamed reports whether a section may be joined under another name, or have members that are.
func isRenamed(section string) bool {
	right := canonical(section, known)
	return right != section || right == autoApprovers
}

// Whatever is joined is a policy with the same meaning when it is read again, or a conflict.
func FuzzJoin(f *testing.F) {
	f.Add(`{"acls": [1]}`, `{"acls": [2]}`)
	f.Add("// a\n{\"groups\": {\"g\": [\"x\"],}, /* b */}", `{"groups": {"g": ["x"], "h": []}} // c`)
	f.Add(`{"autoApprovers": {"exitNode": ["a"]}}`, `{"autoApprovers": {"routes": {}}}`)
	f.Add(`{"AC_ls": [1]}`, `{"auto_approvers": {"exit-node": []}}`)
	f.Add(`{"a": 1e400, "b": -0}`, `{"b": 0, "\ud800": 1}`)
	f.Fuzz(func(t *testing.T, first, second string) {
		g := NewWithT(t)
		one, err := Parse(first)
		if err != nil {
			return
		}
		alone, conflicts := Join("head", []Part{{Source: "a", Document: one}})
		g.Expect(conflicts).To(BeEmpty())
		again, err := Parse(alone)
		g.Expect(err).NotTo(HaveOccurred(), alone)
		if !slices.ContainsFunc(one.Sections(), isRenamed) {
			g.Expect(again.Digest()).To(Equal(one.Digest()))
		}
		other, err := Parse(second)
		if err != nil {
			return
		}
		both, conflicts := Join("head", []Part{{Source: "a", Document: one}, {Source: "b", Document: other}})
		if len(conflicts) > 0 {
			return
		}
		_, err = Parse(both)
		g.Expect(err).NotTo(HaveOccurred(), both)
	})
}
