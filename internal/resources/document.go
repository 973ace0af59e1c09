package resources

import (
	"maps"
	"slices"
	"strings"
)

// document is a config.yaml as maps of maps. Its methods take a dotted path such as
// derp.server.enabled and fail where the document has something else than a section
// on the way.
type document map[string]any

// setting is a value that a document gets where the user wrote nothing.
type setting struct {
	path  string
	value any
}

// lookup returns the value at the path. A value of null counts as not written,
// which is how Headscale sees it.
func (d document) lookup(path string) (value any, written bool, err error) {
	section, key, err := d.find(path, false)
	if err != nil || section == nil {
		return nil, false, err
	}
	value = section[key]
	return value, value != nil, nil
}

// list reports whether there is a list with something in it at the path, or the text
// that Headscale takes for one.
func (d document) list(path string) (bool, error) {
	value, _, err := d.lookup(path)
	switch list := value.(type) {
	case []any:
		return len(list) > 0, err
	case string:
		return list != "", err
	default:
		return value != nil, err
	}
}

// text returns the string at the path, or "".
func (d document) text(path string) (string, error) {
	value, _, err := d.lookup(path)
	text, _ := value.(string)
	return text, err
}

// flag returns the boolean at the path, or false.
func (d document) flag(path string) (bool, error) {
	value, _, err := d.lookup(path)
	flag, _ := value.(bool)
	return flag, err
}

// fill sets every setting whose path is not written yet, in order.
func (d document) fill(settings ...setting) error {
	for _, s := range settings {
		section, key, err := d.find(s.path, true)
		if err != nil {
			return err
		}
		if section[key] == nil {
			section[key] = s.value
		}
	}
	return nil
}

// find returns the section that holds the last part of the path, and that part. A
// section that is missing is made, or else nil is returned.
func (d document) find(path string, create bool) (section map[string]any, key string, err error) {
	section = d
	parts := strings.Split(path, ".")
	for i, part := range parts {
		if err := checkSpelling(section, strings.Join(parts[:i], "."), part); err != nil {
			return nil, "", err
		}
		if i == len(parts)-1 {
			return section, part, nil
		}
		if section[part] == nil {
			if !create {
				return nil, part, nil
			}
			section[part] = map[string]any{}
		}
		next, isSection := section[part].(map[string]any)
		if !isSection {
			return nil, "", invalid("config."+strings.Join(parts[:i+1], "."), "must be a section with keys of its own")
		}
		section = next
	}
	return section, key, nil
}

// checkSpelling refuses a key that differs from the wanted one in upper and lower
// case alone. Headscale would take it for the same key, so that two of them would
// fight.
func checkSpelling(section map[string]any, path, want string) error {
	for _, key := range slices.Sorted(maps.Keys(section)) {
		if key != want && strings.EqualFold(key, want) {
			return invalid(strings.Trim("config."+path, ".")+"."+key, "must be written in lower case: %s", want)
		}
	}
	return nil
}
