package apikey

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// What of SQLite's format must be known to count rows: https://sqlite.org/fileformat.html. The program
// stays small without SQLite.
const (
	tableMagic       = "SQLite format 3\x00"
	tableFileHeader  = 100
	interiorTable    = 0x05
	leafTable        = 0x0d
	interiorHeader   = 12
	leafHeader       = 8
	maxTableDepth    = 20 // SQLite's own limit.
	longestVarint    = 9
	schemaColumns    = 4 // type, name, tbl_name, rootpage
	firstTextSerial  = 13
	largestIntSerial = 6
)

// errNoTables says that a file is not what SQLite writes.
var errNoTables = errors.New("the file is no database, or it is damaged")

// tableFile is a database of SQLite.
type tableFile struct {
	from             io.ReaderAt
	pageSize, usable int
	pages            int64
	// left is how many pages may still be read: a damaged file may lead in circles.
	left int64
}

// newTableFile reads the header of a file of a size.
func newTableFile(from io.ReaderAt, size int64) (*tableFile, error) {
	header := make([]byte, tableFileHeader)
	if _, err := from.ReadAt(header, 0); err != nil || string(header[:len(tableMagic)]) != tableMagic {
		return nil, errNoTables
	}
	pageSize := int(binary.BigEndian.Uint16(header[16:]))
	if pageSize == 1 {
		pageSize = 1 << 16
	}
	if pageSize < 512 || pageSize&(pageSize-1) != 0 {
		return nil, errNoTables
	}
	return &tableFile{from: from, pageSize: pageSize, usable: pageSize - int(header[20]), pages: size / int64(pageSize)}, nil
}

// count counts the rows of a table. It reports false where there is no such table.
func (f *tableFile) count(table string) (rows int64, found bool, err error) {
	root, err := f.rootOf(table)
	if err != nil || root == 0 {
		return 0, false, err
	}
	err = f.walk(root, func(_ []byte, _, cells int) error {
		rows += int64(cells)
		return nil
	})
	return rows, true, err
}

// contains reports whether a row of a table, as far as it is in one page, has a text.
func (f *tableFile) contains(table, text string) (found bool, err error) {
	root, err := f.rootOf(table)
	if err != nil || root == 0 {
		return false, err
	}
	err = f.eachRow(root, func(payload []byte) error {
		found = found || bytes.Contains(payload, []byte(text))
		return nil
	})
	return found, err
}

// rootOf is the first page of the tree of a table, 0 where there is no such table.
func (f *tableFile) rootOf(table string) (root uint32, err error) {
	err = f.eachRow(1, func(payload []byte) error {
		kind, name, at, err := schemaRow(payload)
		if err == nil && kind == "table" && name == table {
			root = at
		}
		return err
	})
	return root, err
}

// eachRow calls row for each row of a table, with what of it is in one page.
func (f *tableFile) eachRow(root uint32, row func(payload []byte) error) error {
	return f.walk(root, func(page []byte, header, cells int) error {
		for i := range cells {
			at := header + 2*i
			if at+2 > len(page) {
				return errNoTables
			}
			payload, err := f.payload(page, int(binary.BigEndian.Uint16(page[at:])))
			if err != nil {
				return err
			}
			if err := row(payload); err != nil {
				return err
			}
		}
		return nil
	})
}

// walk calls leaf for each leaf of the tree of a table, with where its cells are and how many.
func (f *tableFile) walk(root uint32, leaf func(page []byte, header, cells int) error) error {
	f.left = f.pages
	return f.descend(root, 0, leaf)
}

// descend is walk below a page.
func (f *tableFile) descend(number uint32, depth int, leaf func(page []byte, header, cells int) error) error {
	if number == 0 || int64(number) > f.pages || depth > maxTableDepth || f.left == 0 {
		return errNoTables
	}
	f.left--
	page := make([]byte, f.pageSize)
	if read, err := f.from.ReadAt(page, int64(number-1)*int64(f.pageSize)); read < len(page) {
		return err
	}
	header := 0
	if number == 1 {
		header = tableFileHeader
	}
	cells := int(binary.BigEndian.Uint16(page[header+3:]))
	switch page[header] {
	case leafTable:
		return leaf(page, header+leafHeader, cells)
	case interiorTable:
		for i := range cells {
			at := header + interiorHeader + 2*i
			if at+2 > len(page) {
				return errNoTables
			}
			child := int(binary.BigEndian.Uint16(page[at:]))
			if child+4 > len(page) {
				return errNoTables
			}
			if err := f.descend(binary.BigEndian.Uint32(page[child:]), depth+1, leaf); err != nil {
				return err
			}
		}
		return f.descend(binary.BigEndian.Uint32(page[header+leafHeader:]), depth+1, leaf)
	default:
		return errNoTables
	}
}

// schemaRow reads what a row of the schema says: "table", its name, and the first page of its tree.
func schemaRow(payload []byte) (kind, name string, root uint32, err error) {
	// The header of a row of the schema is so short that its size is one byte.
	headerSize, at := varint(payload, 0)
	if at != 1 || headerSize > uint64(len(payload)) {
		return "", "", 0, errNoTables
	}
	body := int(payload[0])
	var texts [schemaColumns]string
	for column := range schemaColumns {
		serial, next := varint(payload[:headerSize], at)
		if next == 0 {
			return "", "", 0, errNoTables
		}
		at = next
		size := sizeOfSerial(serial)
		if size < 0 || size > len(payload)-body {
			return "", "", 0, errNoTables
		}
		texts[column] = string(payload[body : body+size])
		body += size
		if column == schemaColumns-1 && serial == firstTextSerial-4 { // The constant 1.
			root = 1
		}
	}
	for _, digit := range []byte(texts[schemaColumns-1]) {
		root = root<<8 | uint32(digit)
	}
	return texts[0], texts[1], root, nil
}

// payload is what a cell of a leaf has in its page: the rest, if any, is text of SQL.
func (f *tableFile) payload(page []byte, at int) ([]byte, error) {
	size, next := varint(page, at)
	_, begin := varint(page, next)
	if next == 0 || begin == 0 {
		return nil, errNoTables
	}
	local := int64(min(size, 1<<40))
	if most := int64(f.usable - 35); local > most {
		least := int64((f.usable-12)*32/255 - 23)
		local = least + (local-least)%int64(f.usable-4)
		if local > most {
			local = least
		}
	}
	if local < 0 || int64(begin)+local > int64(len(page)) {
		return nil, errNoTables
	}
	return page[begin : begin+int(local)], nil
}

// sizeOfSerial is how many bytes a value of a type has, -1 where the type is none of the schema's.
func sizeOfSerial(serial uint64) int {
	switch {
	case serial <= 4:
		return int(serial)
	case serial == 5:
		return 6
	case serial == largestIntSerial:
		return 8
	case serial == 8 || serial == 9:
		return 0
	case serial >= firstTextSerial && serial%2 == 1 && serial < 1<<20:
		return int(serial-firstTextSerial) / 2
	default:
		return -1
	}
}

// varint reads a number of up to nine bytes, and where what follows begins; 0 where there is none.
func varint(from []byte, at int) (value uint64, next int) {
	for i := range longestVarint {
		if at < 0 || at+i >= len(from) {
			return 0, 0
		}
		b := from[at+i]
		if i == longestVarint-1 {
			return value<<8 | uint64(b), at + longestVarint
		}
		value = value<<7 | uint64(b&0x7f)
		if b < 0x80 {
			return value, at + i + 1
		}
	}
	return 0, 0
}
