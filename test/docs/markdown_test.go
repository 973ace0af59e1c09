package docs_test

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

// page is a page in Markdown.
type page struct {
	// path is below the repository's root, with slashes.
	path    string
	blocks  []block
	links   []link
	anchors []string
	// begin is the namespace in which there is a Headscale at the beginning, or "".
	begin string
	// source is the whole text.
	source string
}

// block is a fenced block of code.
type block struct {
	line     int
	language string
	text     string
	// comment is the text of the HTML comment right before it, or "".
	comment string
}

// name says where a block is and how it begins.
func (b block) name() string {
	first, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
	return fmt.Sprintf("line %d: %s", b.line, first)
}

// link is a link to somewhere, or an image.
type link struct {
	line   int
	target string
}

// notPages are directories without pages of this repository.
var notPages = []string{".git", "bin", "dist", "node_modules", "out"}

// readPages reads every page below the root.
func readPages(root string) ([]page, error) {
	var pages []page
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notPages, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir() || filepath.Ext(path) != ".md":
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		pages = append(pages, parsePage(filepath.ToSlash(relative), source))
		return err
	})
	return pages, err
}

// markdown reads what GitHub reads.
var markdown = goldmark.New(goldmark.WithExtensions(extension.GFM))

// beginComment says in which namespace there is a Headscale at the beginning of a page.
var beginComment = regexp.MustCompile(`(?m)^<!-- test: begin with a Headscale in the namespace ([a-z-]+) -->$`)

// parsePage reads a page.
func parsePage(path string, source []byte) page {
	p := page{path: path, source: string(source)}
	if match := beginComment.FindStringSubmatch(p.source); match != nil {
		p.begin = match[1]
	}
	lineAt := func(offset int) int { return 1 + bytes.Count(source[:offset], []byte("\n")) }
	line := 1
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
			p.blocks = append(p.blocks, block{
				line: line, language: string(node.Language(source)),
				text: string(node.Lines().Value(source)), comment: commentBefore(node, source),
			})
		case *ast.Heading:
			p.addAnchor(textOf(node, source))
		case *ast.Link:
			p.links = append(p.links, link{line, string(node.Destination)})
		case *ast.Image:
			p.links = append(p.links, link{line, string(node.Destination)})
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
func (p *page) addHTML(html string, line int) {
	for _, match := range htmlLink.FindAllStringSubmatch(html, -1) {
		p.links = append(p.links, link{line, match[1]})
	}
	for _, match := range htmlAnchor.FindAllStringSubmatch(html, -1) {
		p.anchors = append(p.anchors, match[1])
	}
}

// addAnchor adds the anchor that GitHub gives a heading.
func (p *page) addAnchor(heading string) {
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
	for i := 1; slices.Contains(p.anchors, unique); i++ {
		unique = fmt.Sprintf("%s-%d", anchor, i)
	}
	p.anchors = append(p.anchors, unique)
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
