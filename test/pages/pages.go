// Package pages reads pages in Markdown: their blocks of code, links and headings, and what
// transcripts in them show.
package pages

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Page is a page in Markdown.
type Page struct {
	// Path is below the repository's root, with slashes.
	Path    string
	Blocks  []Block
	Links   []Link
	Anchors []string
	// Begin is the namespace in which there is a Headscale at the beginning, or "".
	Begin string
	// Source is the whole text.
	Source string
}

// Block is a fenced block of code.
type Block struct {
	Line     int
	Language string
	Text     string
	// Comment is the text of the HTML comment right before it, or "".
	Comment string
	// Heading is the text of the heading above it, or "".
	Heading string
}

// Name says where a block is and how it begins.
func (b Block) Name() string {
	first, _, _ := strings.Cut(strings.TrimSpace(b.Text), "\n")
	return fmt.Sprintf("line %d: %s", b.Line, first)
}

// fileName matches the comment by which a manifest is kept as a file.
var fileName = regexp.MustCompile(`^# ([A-Za-z0-9._-]+\.ya?ml)\n`)

// File is the name of the file as which a manifest is kept, or "".
func (b Block) File() string {
	if match := fileName.FindStringSubmatch(b.Text); match != nil {
		return match[1]
	}
	return ""
}

// Link is a link to somewhere, or an image.
type Link struct {
	Line   int
	Target string
}

// notPages are directories without pages of this repository.
var notPages = []string{".git", "bin", "dist", "node_modules", "out"}

// ReadAll reads every page below the root.
func ReadAll(root string) ([]Page, error) {
	var pages []Page
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notPages, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		page, err := Read(root, filepath.ToSlash(relative))
		pages = append(pages, page)
		return err
	})
	return pages, err
}

// Read reads one page, whose path is below the root.
func Read(root, path string) (Page, error) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return Page{}, err
	}
	return Parse(path, source), nil
}

// Below returns the texts of the blocks in a language whose heading is this, of which there must
// be some.
func (p Page) Below(heading, language string) ([]string, error) {
	var texts []string
	for _, b := range p.Blocks {
		if b.Heading == heading && b.Language == language {
			texts = append(texts, b.Text)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("%s has nothing in %s below %q", p.Path, language, heading)
	}
	return texts, nil
}

// markdown reads what GitHub reads.
var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

// beginComment says in which namespace there is a Headscale at the beginning of a page.
var beginComment = regexp.MustCompile(`(?m)^<!-- test: begin with a Headscale in the namespace ([a-z-]+) -->$`)

// Parse reads a page.
func Parse(path string, source []byte) Page {
	p := Page{Path: path, Source: string(source)}
	if match := beginComment.FindStringSubmatch(p.Source); match != nil {
		p.Begin = match[1]
	}
	lineAt := func(offset int) int { return 1 + bytes.Count(source[:offset], []byte("\n")) }
	line, heading := 1, ""
	// The walk cannot fail, because the visitor does not.
	_ = ast.Walk(markdown.Parser().Parse(text.NewReader(source)), func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if node.Type() == ast.TypeBlock && node.Lines().Len() > 0 {
			line = lineAt(node.Lines().At(0).Start)
		}
		switch node := node.(type) {
		case *ast.FencedCodeBlock:
			p.Blocks = append(p.Blocks, Block{
				Line: line, Language: string(node.Language(source)), Heading: heading,
				Text: string(node.Lines().Value(source)), Comment: commentBefore(node, source),
			})
		case *ast.Heading:
			heading = textOf(node, source)
			p.addAnchor(heading)
		case *ast.Link:
			p.Links = append(p.Links, Link{line, string(node.Destination)})
		case *ast.Image:
			p.Links = append(p.Links, Link{line, string(node.Destination)})
		case *ast.RawHTML:
			p.addHTML(string(node.Segments.Value(source)), line)
		case *ast.HTMLBlock:
			p.addHTML(string(node.Lines().Value(source)), line)
		}
		return ast.WalkContinue, nil
	})
	return p
}

var (
	htmlComment = regexp.MustCompile(`(?s)^<!--\s*(.*?)\s*-->$`)
	htmlLink    = regexp.MustCompile(`(?:href|src|srcset)="([^"]*)"`)
	htmlAnchor  = regexp.MustCompile(`<a (?:id|name)="([^"]*)"`)
)

// commentBefore is the text of the HTML comment right before a node.
func commentBefore(node ast.Node, source []byte) string {
	before, ok := node.PreviousSibling().(*ast.HTMLBlock)
	if !ok {
		return ""
	}
	raw := string(before.Lines().Value(source))
	if before.HasClosure() {
		raw += string(before.ClosureLine.Value(source))
	}
	match := htmlComment.FindStringSubmatch(strings.TrimSpace(raw))
	if match == nil {
		return ""
	}
	return match[1]
}

// addHTML takes links and anchors out of HTML.
func (p *Page) addHTML(html string, line int) {
	for _, match := range htmlLink.FindAllStringSubmatch(html, -1) {
		p.Links = append(p.Links, Link{line, match[1]})
	}
	for _, match := range htmlAnchor.FindAllStringSubmatch(html, -1) {
		p.Anchors = append(p.Anchors, match[1])
	}
}

// addAnchor adds the anchor that GitHub gives a heading.
func (p *Page) addAnchor(heading string) {
	anchor := strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r):
			return unicode.ToLower(r)
		default:
			return -1
		}
	}, strings.TrimSpace(heading))
	unique := anchor
	for i := 1; slices.Contains(p.Anchors, unique); i++ {
		unique = fmt.Sprintf("%s-%d", anchor, i)
	}
	p.Anchors = append(p.Anchors, unique)
}

// textOf is the text of a heading without its markup.
func textOf(node ast.Node, source []byte) string {
	var words strings.Builder
	_ = ast.Walk(node, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if leaf, ok := node.(*ast.Text); ok && entering {
			words.Write(leaf.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return words.String()
}

// Quoted are the parts of a text, such as a cell of a table, that stand in backquotes.
func Quoted(text string) []string {
	var parts []string
	for i, part := range strings.Split(text, "`") {
		if i%2 == 1 {
			parts = append(parts, part)
		}
	}
	return parts
}
