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

/** Parses the values in the body of a query. Methods throw ParsingException, with line and column, if a value is invalid. */
abstract class BodyParser {
    final XContentParser parser;
    private final String name;

    /** {@code name}: name of the query, which errors begin with. */
    BodyParser(XContentParser parser, String name) {
        this.parser = parser;
        this.name = name;
    }

    final String text(String key, String what) throws IOException {
        expect(Token.VALUE_STRING, key, what);
        return parser.text();
    }

    final QueryBuilder query(String key) throws IOException {
        expect(Token.START_OBJECT, key, "a query");
        return AbstractQueryBuilder.parseInnerQueryBuilder(parser);
    }

    /** A list of integers from -128 to 127, as bytes. */
    final byte[] bytes(String key, String hint) throws IOException {
        List<Integer> found = new ArrayList<>();
        while (parser.nextToken() != Token.END_ARRAY) {
            Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
            if (number == null || number.doubleValue() != number.byteValue()) {
                throw error("[" + key + "] must be a list of integers from -128 to 127, found " + parser.textOrNull() + hint);
            }
            found.add(number.intValue());
        }
        byte[] bytes = new byte[found.size()];
        for (int i = 0; i < bytes.length; i++) {
            bytes[i] = found.get(i).byteValue();
        }
        return bytes;
    }

    /** An integer from min to max. */
    final int integer(String key, int min, int max, String range) throws IOException {
        Number number = parser.currentToken() == Token.VALUE_NUMBER ? parser.numberValue() : null;
        if (number == null || number.doubleValue() != number.intValue() || number.intValue() < min || number.intValue() > max) {
            throw error("[" + key + "] must be an integer " + range + ", found " + parser.textOrNull());
        }
        return number.intValue();
    }

    final void expect(Token token, String key, String what) {
        if (parser.currentToken() != token) {
            throw error("[" + key + "] must be " + what);
        }
    }

    final ParsingException error(String message) {
        return new ParsingException(parser.getTokenLocation(), "[" + name + "] " + message);
    }
}
