// SPDX-License-Identifier: Apache-2.0
package org.xmodal.hamming;

import java.io.IOException;
import java.util.ArrayList;
import java.util.List;

import org.opensearch.core.common.ParsingException;
import org.opensearch.core.xcontent.XContentParser;
import org.opensearch.core.xcontent.XContentParser.Token;
import org.opensearch.index.query.AbstractQueryBuilder;
import org.opensearch.index.query.QueryBuilder;

/** Reads the body of a {@code hamming} query. What is wrong is said with line and column, as the server does elsewhere. */
final class HammingParser {
    private static final int MOST_CODES = 256;

    private final XContentParser parser;
    private List<String> fields;
    private List<QueryCode> codes;

    private HammingParser(XContentParser parser) {
        this.parser = parser;
    }

    static HammingQueryBuilder parse(HammingService service, XContentParser parser) throws IOException {
        return new HammingParser(parser).query(service);
    }

    private HammingQueryBuilder query(HammingService service) throws IOException {
        int maxDistance = HammingQueryBuilder.ANY_DISTANCE;
        QueryBuilder filter = null;
        float boost = AbstractQueryBuilder.DEFAULT_BOOST;
        String queryName = null;
        while (parser.nextToken() != Token.END_OBJECT) {
            String key = parser.currentName();
            parser.nextToken();
            switch (key) {
                case "field" -> setFields(List.of(text(key)), key);
                case "fields" -> setFields(texts(key), key);
                case "code" -> setCodes(List.of(code(key)), key);
                case "codes" -> setCodes(codes(key), key);
                case "max_distance" -> maxDistance = distance(key);
                case "filter" -> {
                    wanted(Token.START_OBJECT, key, "a query");
                    filter = AbstractQueryBuilder.parseInnerQueryBuilder(parser);
                }
                case "boost" -> boost = parser.floatValue();
                case "_name" -> queryName = parser.text();
                default -> throw wrong("knows no [" + key + "]; it takes field or fields, code or codes, max_distance, filter, boost, _name");
            }
        }
        if (fields == null) {
            throw wrong("wants [field] or [fields]");
        }
        if (codes == null) {
            throw wrong("wants [code] or [codes]");
        }
        return new HammingQueryBuilder(service, fields, codes, maxDistance, filter).boost(boost).queryName(queryName);
    }

    private void setFields(List<String> given, String key) {
        if (fields != null || given.isEmpty()) {
            throw wrong(given.isEmpty() ? "[" + key + "] is empty" : "takes [field] or [fields], once");
        }
        fields = given;
    }

    private void setCodes(List<QueryCode> given, String key) {
        if (codes != null || given.isEmpty()) {
            throw wrong(given.isEmpty() ? "[" + key + "] is empty" : "takes [code] or [codes], once");
        }
        codes = given;
    }

    private String text(String key) throws IOException {
        wanted(Token.VALUE_STRING, key, "a name");
        return parser.text();
    }

    private List<String> texts(String key) throws IOException {
        wanted(Token.START_ARRAY, key, "a list of names");
        List<String> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            found.add(text(key));
        }
        return found;
    }

    private List<QueryCode> codes(String key) throws IOException {
        wanted(Token.START_ARRAY, key, "a list of codes");
        List<QueryCode> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            found.add(code(key));
        }
        if (found.size() > MOST_CODES) {
            throw wrong("[" + key + "] has " + found.size() + " codes; " + MOST_CODES + " are the most");
        }
        return found;
    }

    private QueryCode code(String key) throws IOException {
        switch (parser.currentToken()) {
            case VALUE_STRING:
                return QueryCode.ofText(parser.text());
            case VALUE_EMBEDDED_OBJECT:
                return QueryCode.ofBytes(parser.binaryValue());
            case START_ARRAY:
                return QueryCode.ofBytes(bytes(key));
            default:
                throw wrong("[" + key + "] wants hex, base64 or a list of numbers from -128 to 127");
        }
    }

    private byte[] bytes(String key) throws IOException {
        List<Integer> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
            if (number == null || number.doubleValue() != number.byteValue()) {
                throw wrong("[" + key + "] wants whole numbers from -128 to 127, not " + parser.textOrNull()
                    + (key.equals("code") ? " (several codes go into [codes])" : ""));
            }
            found.add(number.intValue());
        }
        byte[] bytes = new byte[found.size()];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = found.get(i).byteValue();
        }
        return bytes;
    }

    private int distance(String key) throws IOException {
        Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
        if (number == null || number.doubleValue() != number.intValue() || number.intValue() < 0) {
            throw wrong("[" + key + "] wants a whole number of bits, 0 or more, not " + parser.textOrNull());
        }
        return number.intValue();
    }

    private void wanted(Token token, String key, String what) {
        if (parser.currentToken() != token) {
            throw wrong("[" + key + "] wants " + what);
        }
    }

    private ParsingException wrong(String what) {
        return new ParsingException(parser.getTokenLocation(), "[" + HammingQueryBuilder.NAME + "] " + what);
    }
}
